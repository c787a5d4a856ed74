"""Pixels and images are inverses."""

import pytest
import torch

from vqtrain.ops.pixels import to_images, to_pixels


def test_every_level_comes_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_pixels(to_images(levels)), levels)
    assert torch.equal(to_pixels(to_images(levels, torch.float64)), levels)


def test_images_outside_the_range_are_clamped() -> None:
    images = torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2)
    assert to_pixels(images).flatten().tolist() == [0, 255]
    assert to_pixels(images, value_range=(-1000.0, 3000.0)).flatten().tolist() == [-1000, 3000]


@pytest.mark.parametrize(
    "value_range", [(0.0, 65_535.0), (-1000.0, 3000.0), (0.0, 1.0), (-0.5, 0.25)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_of_a_range_come_back(value_range: tuple[float, float], dtype: torch.dtype) -> None:
    black, white = value_range
    span = white - black
    values = black + span * torch.rand(1, 3, 100, 100, generator=torch.Generator().manual_seed(0))
    values[0, 0, 0, :2] = torch.tensor(value_range)
    images = to_images(values, dtype, value_range=value_range)
    assert images.dtype == dtype
    assert images[0, 0, 0, :2].tolist() == [-1, 1]
    pixels = to_pixels(images, value_range=value_range)
    assert pixels.dtype == torch.float32
    assert (pixels - values).abs().max() <= 1e-6 * span


def test_half_precision_does_not_overflow() -> None:
    values = torch.tensor([0.0, 65_535.0]).reshape(1, 1, 1, 2)
    images = to_images(values, torch.float16, value_range=(0.0, 65_535.0))
    assert images.flatten().tolist() == [-1, 1]


@pytest.mark.parametrize("size", [(7,), (2, 3), (2, 3, 4)], ids=["sound", "image", "clip"])
def test_samples_have_any_number_of_axes(size: tuple[int, ...]) -> None:
    stored = torch.arange(2 * 3 * torch.Size(size).numel(), dtype=torch.uint8).reshape(2, 3, *size)
    samples = to_images(stored)
    assert samples.shape == stored.shape
    assert torch.equal(to_pixels(samples), stored)
