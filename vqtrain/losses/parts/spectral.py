"""What loss terms of the spectra of sounds share."""

from collections.abc import Sequence

from vqtrain.errors import require


def check_frames(frames: Sequence[int], sample_size: Sequence[int]) -> None:
    """Refuse sounds that are too short for the frames of a transform, which mirrors their ends.

    Args:
        frames: Lengths of the frames.
        sample_size: Of the axes of a sample.

    Raises:
        ConfigError: If the samples are no sounds, or too short.
    """
    require(
        len(frames) > 0 and all(each >= 2 and each % 2 == 0 for each in frames),
        f"frames must be even numbers of at least 2, got {list(frames)}",
    )
    require(
        len(sample_size) == 1,
        f"frames are of sounds, with 1 axes; samples here have {len(sample_size)}",
    )
    require(
        max(frames) // 2 < sample_size[0],
        f"frames must be shorter than twice a sound of {sample_size[0]:,} samples, got "
        f"{list(frames)}",
    )
