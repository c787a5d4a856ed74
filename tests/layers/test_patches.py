"""Patches and back: exact for every size that divides."""

import itertools

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.layers.patches import PixelHead, grid_of, sides_of, to_patches, to_samples


@pytest.mark.parametrize("patch_size", [1, 2, 7, 16])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
def test_patches_become_the_very_pixels_again(patch_size: int, grid: tuple[int, int]) -> None:
    size, sides = tuple(n * patch_size for n in grid), (patch_size, patch_size)
    assert grid_of(size, sides) == grid
    images = torch.randn(2, 3, *size)
    patches = to_patches(images, sides)
    assert patches.shape == (2, 3 * patch_size**2, *grid)
    assert torch.equal(to_samples(patches, sides), images)
    assert torch.equal(to_patches(to_samples(patches, sides), sides), patches)


def test_the_values_of_a_patch_are_its_channels_then_its_rows() -> None:
    images = torch.arange(32.0).reshape(1, 2, 4, 4)
    patch = to_patches(images, (2, 2))[0, :, 0, 1]
    assert patch.tolist() == [2, 3, 6, 7, 18, 19, 22, 23]


def test_patches_of_clips_have_frames_too() -> None:
    clips = torch.randn(2, 3, 4, 6, 8)
    sides = sides_of([2, 3, 4], clips.shape[2:])
    patches = to_patches(clips, sides)
    assert grid_of((4, 6, 8), sides) == patches.shape[2:] == (2, 2, 2)
    for c, o, p, q in itertools.product(range(3), range(2), range(3), range(4)):
        value = patches[:, ((c * 2 + o) * 3 + p) * 4 + q, 1, 0, 1]
        assert torch.equal(value, clips[:, c, 2 + o, p, 4 + q])
    assert torch.equal(to_samples(patches, sides), clips)
    assert sides_of(2, (4, 6, 8)) == (2, 2, 2)
    with pytest.raises(ConfigError, match=r"one number or 3, .* of 4 x 6 x 8, got \[2, 2\]"):
        sides_of([2, 2], (4, 6, 8))
    with pytest.raises(ConfigError, match="patches of 2 x 4 x 4 px do not divide a sample"):
        grid_of((4, 6, 8), (2, 4, 4))


@pytest.mark.parametrize("size", [(32, 30), (8, 32), (33, 32)])
def test_a_size_that_does_not_divide_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="patches of 16 px do not divide a sample of"):
        grid_of(size, (16, 16))


def test_heads_turn_a_token_into_its_patch() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 6, 2, 2)
    linear = PixelHead("linear", dim=6, out_channels=3, sides=(4, 4))
    weight, bias = linear.to_pixels.weight, linear.to_pixels.bias
    want = torch.einsum("d,dcpq->cpq", x[0, :, 1, 0], weight) + bias[:, None, None]
    torch.testing.assert_close(linear(x)[0, :, 4:8, :4], want)
    mlp = PixelHead("tanh_mlp", dim=6, out_channels=3, sides=(4, 4))
    hidden = (mlp.hidden.weight[..., 0, 0] @ x[0, :, 1, 0] + mlp.hidden.bias).tanh()
    values = mlp.to_pixels.weight[..., 0, 0] @ hidden + mlp.to_pixels.bias
    torch.testing.assert_close(mlp(x)[0, :, 4:8, :4], values.reshape(3, 4, 4))
    conv = PixelHead("conv", dim=6, out_channels=3, sides=(4, 4))
    pixels = to_samples(conv.to_pixels(x), (4, 4))
    torch.testing.assert_close(conv(x), conv.smooth(pixels))
