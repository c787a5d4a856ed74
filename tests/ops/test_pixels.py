"""Pixels and images are exact inverses."""

import torch

from vqtrain.ops.pixels import to_images, to_pixels


def test_every_level_comes_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_pixels(to_images(levels)), levels)
    assert torch.equal(to_pixels(to_images(levels, torch.float64)), levels)


def test_images_outside_the_range_are_clamped() -> None:
    images = torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2)
    assert to_pixels(images).flatten().tolist() == [0, 255]
