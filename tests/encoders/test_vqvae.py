"""The VQ-VAE encoder against its layers written out."""

import pytest
import torch
import torch.nn.functional as F

from vqtrain.encoders.vqvae import VQVAEEncoder
from vqtrain.errors import ConfigError


def encoder(**changes: int) -> VQVAEEncoder:
    sizes = {
        "in_channels": 3,
        "channels": 8,
        "block_channels": 4,
        "num_blocks": 2,
        "num_downsamplings": 2,
    }
    return VQVAEEncoder(**{**sizes, **changes})


def test_encoder_equals_its_layers_written_out() -> None:
    torch.manual_seed(0)
    module = encoder().double()
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    w = list(module.parameters())
    h = F.conv2d(images, w[0], w[1], stride=2, padding=1).relu()
    h = F.conv2d(h, w[2], w[3], stride=2, padding=1).relu()
    h = F.conv2d(h, w[4], w[5], padding=1)
    for block in (w[6:10], w[10:14]):
        h = h + F.conv2d(F.conv2d(h.relu(), block[0], block[1], padding=1).relu(), *block[2:])
    torch.testing.assert_close(module(images), h.relu())


def test_default_size_is_that_of_the_reference() -> None:
    # Kernels and biases: 4*4*3*64 + 64, 4*4*64*128 + 128, 3*3*128*128 + 128, and twice
    # 3*3*128*32 + 32 with 128*32 + 128, that is 3136 + 131200 + 147584 + 2 * (36896 + 4224).
    module = encoder(channels=128, block_channels=32)
    assert sum(parameter.numel() for parameter in module.parameters()) == 364_160


@pytest.mark.parametrize("num_downsamplings", [1, 2, 3])
def test_latents_have_the_promised_shape(num_downsamplings: int) -> None:
    module = encoder(num_downsamplings=num_downsamplings)
    assert module.downsampling == (2**num_downsamplings, 2**num_downsamplings)
    latents = module(torch.randn(2, 3, 16, 32))
    assert latents.shape == (2, module.out_channels, *module.grid((16, 32)))


def test_widths_are_half_first_and_full_then() -> None:
    kernels = [p for p in encoder(num_downsamplings=3).parameters() if p.shape[2:] == (4, 4)]
    assert [kernel.shape[:2] for kernel in kernels] == [(4, 3), (8, 4), (8, 8)]


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    module = encoder()
    module(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "value", "minimum"),
    [
        ("in_channels", 0, 1),
        ("channels", 1, 2),
        ("block_channels", 0, 1),
        ("num_blocks", -1, 0),
        ("num_downsamplings", 0, 1),
    ],
)
def test_an_impossible_size_is_refused(name: str, value: int, minimum: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be at least {minimum}, got {value}"):
        encoder(**{name: value})
