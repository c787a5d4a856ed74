"""Pictures of several images."""

import numpy as np
import torch

from vqtrain.generation.grid import image_grid


def test_images_stand_row_by_row_with_white_between_them_and_where_one_is_missing() -> None:
    pixels = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 4, 5)
    grid = np.array(image_grid(pixels, 2))
    assert grid.shape == (4 + 2 + 4, 5 + 2 + 5, 3)
    expected = np.full((10, 12, 3), 255, np.uint8)
    expected[:4, :5], expected[:4, 7:], expected[6:, :5] = 0, 1, 2
    np.testing.assert_array_equal(grid, expected)


def test_one_channel_is_gray() -> None:
    grid = np.array(image_grid(torch.full((1, 1, 2, 2), 7, dtype=torch.uint8), 1))
    np.testing.assert_array_equal(grid, np.full((2, 2, 3), 7))
