"""How large the samples of a training were, and how long they last."""

from collections.abc import Mapping

from vqtrain.shapes import sides


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


def size_in(training_summary: Mapping[str, object]) -> tuple[int, ...] | None:
    """Return the sizes of the axes of a sample; None if they are not known.

    Example:
        >>> size_in({"image_size": 64, "frames": 17}), size_in({"length": 24000}), size_in({})
        ((17, 64, 64), (24000,), None)
    """
    length, image_size = training_summary.get("length"), training_summary.get("image_size")
    if isinstance(length, int):
        return (length,)
    if not isinstance(image_size, int | list):
        return None
    frames = training_summary.get("frames")
    return (*([frames] if isinstance(frames, int) else []), *sides(image_size))
