"""Value ranges: the one place where stored samples become samples in [-1, 1], and back.

Samples have any number of axes after the channels: images, clips, sounds. Their stored values are
called pixels. A range is the lowest and the highest of them, black and white; None means uint8 in
0..255.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

ValueRange = tuple[float, float]

UINT8_RANGE: ValueRange = (0.0, 255.0)


def to_images(
    pixels: Shaped[Tensor, "b c *size"],
    dtype: torch.dtype = torch.float32,
    *,
    value_range: ValueRange | None = None,
) -> Float[Tensor, "b c *size"]:
    """Map pixels to images in [-1, 1].

    Args:
        pixels: uint8 without a range, else floats within it.
        dtype: Of the images.
        value_range: Of the pixels.

    Example:
        >>> to_images(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist()
        [[[[-1.0, 1.0]]]]
        >>> to_images(torch.tensor([[[[-1000.0, 1000.0]]]]), value_range=(-1000.0, 3000.0)).tolist()
        [[[[-1.0, 0.0]]]]
    """
    black, white = value_range or UINT8_RANGE
    # Half precision holds neither 65,535 nor the steps between large values.
    wide = pixels.to(torch.promote_types(dtype, torch.float32))
    return ((wide - black) / ((white - black) / 2) - 1).to(dtype)


def to_pixels(
    images: Float[Tensor, "b c *size"], *, value_range: ValueRange | None = None
) -> Shaped[Tensor, "b c *size"]:
    """Map images in [-1, 1] to pixels: clamped, and rounded to the nearest of 0..255 as uint8.

    Rounding makes this the exact inverse of ``to_images``; truncation, as in some evaluators,
    darkens a quarter of all levels by one. With a range the pixels are float32 and not rounded.

    Args:
        images: Values outside of [-1, 1] are clamped.
        value_range: Of the pixels.

    Example:
        >>> to_pixels(torch.tensor([[[[-1.5, -1.0, 0.0, 1.0]]]])).tolist()
        [[[[0, 0, 128, 255]]]]
        >>> to_pixels(torch.tensor([[[[-1.5, 0.0]]]]), value_range=(-1000.0, 3000.0)).tolist()
        [[[[-1000.0, 1000.0]]]]
    """
    black, white = value_range or UINT8_RANGE
    pixels = (images.detach().float().clamp(-1, 1) + 1) * ((white - black) / 2) + black
    return pixels.round().to(torch.uint8) if value_range is None else pixels
