"""Patches and back: exact for every size that divides."""

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.layers.patches import PixelHead, grid_of, to_images, to_patches


@pytest.mark.parametrize("patch_size", [1, 2, 7, 16])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
def test_patches_become_the_very_pixels_again(patch_size: int, grid: tuple[int, int]) -> None:
    size = tuple(n * patch_size for n in grid)
    assert grid_of(size, patch_size) == grid
    images = torch.randn(2, 3, *size)
    patches = to_patches(images, patch_size)
    assert patches.shape == (2, 3 * patch_size**2, *grid)
    assert torch.equal(to_images(patches, patch_size), images)
    assert torch.equal(to_patches(to_images(patches, patch_size), patch_size), patches)


def test_the_values_of_a_patch_are_its_channels_then_its_rows() -> None:
    images = torch.arange(32.0).reshape(1, 2, 4, 4)
    patch = to_patches(images, 2)[0, :, 0, 1]
    assert patch.tolist() == [2, 3, 6, 7, 18, 19, 22, 23]


@pytest.mark.parametrize("size", [(32, 30), (8, 32), (33, 32)])
def test_a_size_that_does_not_divide_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="patches of 16 px do not divide a sample of"):
        grid_of(size, 16)


def test_heads_turn_a_token_into_its_patch() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 6, 2, 2)
    linear = PixelHead("linear", dim=6, out_channels=3, patch_size=4)
    weight, bias = linear.to_pixels.weight, linear.to_pixels.bias
    want = torch.einsum("d,dcpq->cpq", x[0, :, 1, 0], weight) + bias[:, None, None]
    torch.testing.assert_close(linear(x)[0, :, 4:8, :4], want)
    mlp = PixelHead("tanh_mlp", dim=6, out_channels=3, patch_size=4)
    hidden = (mlp.hidden.weight[..., 0, 0] @ x[0, :, 1, 0] + mlp.hidden.bias).tanh()
    values = mlp.to_pixels.weight[..., 0, 0] @ hidden + mlp.to_pixels.bias
    torch.testing.assert_close(mlp(x)[0, :, 4:8, :4], values.reshape(3, 4, 4))
    conv = PixelHead("conv", dim=6, out_channels=3, patch_size=4)
    pixels = to_images(conv.to_pixels(x), 4)
    torch.testing.assert_close(conv(x), conv.smooth(pixels))
