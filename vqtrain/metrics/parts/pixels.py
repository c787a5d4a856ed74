"""Samples in [-1, 1] against pixels by mistake, which would give a distance that means nothing."""

import torch
from jaxtyping import Shaped
from torch import Tensor


def check_floats(images: Shaped[Tensor, "b c *size"]) -> None:
    """Refuse what cannot be reconstructions.

    Raises:
        TypeError: If they are not floats.
        ValueError: If they are pixels as floats.
    """
    if not images.is_floating_point():
        raise TypeError(f"images are floats in [-1, 1], got {images.dtype}")
    if are_pixels(images):
        raise ValueError("images are floats in [-1, 1], got pixels as floats in [0, 1] or [0, 255]")


def are_pixels(images: Shaped[Tensor, "b c *size"]) -> bool:
    """Tell whether floats are the levels 0..255, as they are or divided by 255.

    There is no false alarm on dark or bright images. In [-1, 1] levels from 128 on are odd
    multiples of 1 / 255 and lower ones are negative, while in [0, 1] half of the levels are even
    multiples. The output of a network is no multiple at all, but for a plain 0 or 1.
    """
    if not images.numel() or images.amin() < 0:
        return False
    multiples = images.double() * 255
    whole = multiples.round()
    if not torch.allclose(multiples, whole, rtol=0, atol=1e-3):
        return False
    return bool(((whole % 2 == 0) & (whole > 0)).any())
