"""Names of axes and of the tensors they describe, as used in every signature.

Axes: ``b`` samples in a batch, ``c`` channels, ``*size`` the axes of a sample: ``h w`` of an image,
``t h w`` of a clip, ``t`` of a sound; ``*grid`` the axes of its latents, ``*tokens`` those of its
ids, ``k`` codebooks (ids per grid position), ``n`` vectors in a flat list.

Words: ``samples`` are floats in [-1, 1], ``images`` are samples of two axes; ``pixels`` are uint8
in 0..255; ``z`` are latents, ``z_q`` quantized latents; ``token_ids`` are int64 in
[0, codebook.size).
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Images = Float[Tensor, "b c h w"]
Pixels = UInt8[Tensor, "b c *size"]
# The side of squares, or height and width, in px; in results the sizes of any sample's axes.
ImageSize = int | list[int]
Latents = Float[Tensor, "b c *grid"]
Mask = Bool[Tensor, " b"]


def sides(image_size: ImageSize) -> tuple[int, int]:
    """Return height and width, in px.

    Example:
        >>> sides(64), sides([256, 384])
        ((64, 64), (256, 384))
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return height, width


def sample_size_of(image_size: ImageSize) -> tuple[int, ...]:
    """Return the sizes of the axes of a sample, in results.

    Example:
        >>> sample_size_of(64), sample_size_of([17, 64, 64]), sample_size_of([24000])
        ((64, 64), (17, 64, 64), (24000,))
    """
    return (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)


def in_px(image_size: ImageSize) -> str:
    """Write the size of images for people.

    Example:
        >>> in_px(64), in_px([256, 384])
        ('64 x 64 px', '256 x 384 px (height x width)')
    """
    height, width = sides(image_size)
    return f"{height} x {width} px{'' if height == width else ' (height x width)'}"


def in_words(size: Sequence[int]) -> str:
    """Write the size of a sample for people: of an image, a clip or a sound.

    Example:
        >>> in_words((64, 64)), in_words((17, 64, 96)), in_words((24000,))
        ('64 x 64 px', '17 frames of 64 x 96 px (height x width)', '24,000 values')
    """
    if len(size) == 1:
        return f"{size[0]:,} values"
    return f"{size[0]} frames of {in_px(list(size[1:]))}" if len(size) == 3 else in_px(list(size))


def typed(image_size: ImageSize) -> str:
    """Write a size as a user types it.

    Example:
        >>> typed(64), typed([256, 384])
        ('64', '[256,384]')
    """
    return str(image_size).replace(" ", "")


def by(size: Sequence[int]) -> str:
    """Write a size for people.

    Example:
        >>> by((3, 32, 64))
        '3 x 32 x 64'
    """
    return " x ".join(map(str, size))
