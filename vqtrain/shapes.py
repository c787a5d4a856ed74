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
ImageSize = int | list[int]  # the side of squares, or height and width, in px
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


def in_px(image_size: ImageSize) -> str:
    """Write the size of images for people.

    Example:
        >>> in_px(64), in_px([256, 384])
        ('64 x 64 px', '256 x 384 px (height x width)')
    """
    height, width = sides(image_size)
    return f"{height} x {width} px{'' if height == width else ' (height x width)'}"


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
