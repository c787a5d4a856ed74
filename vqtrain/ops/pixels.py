"""Pixel ranges: the one place where uint8 pixels become images in [-1, 1], and back."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_images(
    pixels: UInt8[Tensor, "b c h w"], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b c h w"]:
    """Map pixels 0..255 to images in [-1, 1].

    Example:
        >>> to_images(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist()
        [[[[-1.0, 1.0]]]]
    """
    return pixels.to(dtype) / 127.5 - 1


def to_pixels(images: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
    """Map images in [-1, 1] to pixels, clamped and rounded to the nearest of 0..255.

    Rounding makes this the exact inverse of ``to_images``; truncating, as some evaluators do,
    darkens a quarter of all levels by one.

    Example:
        >>> to_pixels(torch.tensor([[[[-1.5, -1.0, 0.0, 1.0]]]])).tolist()
        [[[[0, 0, 128, 255]]]]
    """
    return ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
