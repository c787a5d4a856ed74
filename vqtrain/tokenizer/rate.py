"""How samples last in time, as far as a tokenizer knows."""

from collections.abc import Mapping


def rate_in(training_summary: Mapping[str, object]) -> float | None:
    """Return how many positions a second samples have along their first axis.

    Args:
        training_summary: Of a tokenizer: it holds ``sample_rate`` of sounds, and ``fps`` of clips.

    Returns:
        None of images, and of clips whose frames were taken as they came.

    Example:
        >>> rate_in({"sample_rate": 16000, "length": 24000}), rate_in({"image_size": 64})
        (16000.0, None)
    """
    found = training_summary.get("sample_rate") or training_summary.get("fps")
    return float(found) if isinstance(found, int | float) else None
