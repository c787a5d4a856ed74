"""The VQ-VAE decoder against its layers written out."""

import pytest
import torch
import torch.nn.functional as F

from vqtrain.decoders.vqvae import VQVAEDecoder
from vqtrain.errors import ConfigError


def decoder(**changes: int) -> VQVAEDecoder:
    sizes = {
        "out_channels": 3,
        "channels": 8,
        "block_channels": 4,
        "num_blocks": 2,
        "num_upsamplings": 2,
    }
    return VQVAEDecoder(**{**sizes, **changes})


def test_decoder_equals_its_layers_written_out() -> None:
    torch.manual_seed(0)
    module = decoder().double()
    z_q = torch.randn(2, 8, 4, 6, dtype=torch.float64)
    w = list(module.parameters())
    h = F.conv2d(z_q, w[0], w[1], padding=1)
    for block in (w[2:6], w[6:10]):
        h = h + F.conv2d(F.conv2d(h.relu(), block[0], block[1], padding=1).relu(), *block[2:])
    h = F.conv_transpose2d(h.relu(), w[10], w[11], stride=2, padding=1)
    h = F.conv_transpose2d(h.relu(), w[12], w[13], stride=2, padding=1)
    torch.testing.assert_close(module(z_q), h)


def test_default_size_is_that_of_the_reference() -> None:
    # Kernels and biases: 3*3*128*128 + 128, twice 3*3*128*32 + 32 with 128*32 + 128, 4*4*128*64
    # + 64 and 4*4*64*3 + 3: together 147584 + 2 * (36896 + 4224) + 131136 + 3075.
    module = decoder(channels=128, block_channels=32)
    assert sum(parameter.numel() for parameter in module.parameters()) == 364_035


@pytest.mark.parametrize("num_upsamplings", [1, 2, 3])
def test_images_have_the_promised_shape(num_upsamplings: int) -> None:
    module = decoder(num_upsamplings=num_upsamplings)
    assert module.upsampling == (2**num_upsamplings, 2**num_upsamplings)
    images = module(torch.randn(2, module.in_channels, 2, 4))
    assert images.shape == (2, 3, *module.size((2, 4)))


@pytest.mark.parametrize(
    ("num_upsamplings", "widths"),
    [(1, [(8, 3)]), (2, [(8, 4), (4, 3)]), (3, [(8, 8), (8, 4), (4, 3)])],
)
def test_widths_mirror_the_encoder(num_upsamplings: int, widths: list[tuple[int, int]]) -> None:
    module = decoder(num_upsamplings=num_upsamplings)
    kernels = [p for p in module.parameters() if p.shape[2:] == (4, 4)]
    assert [kernel.shape[:2] for kernel in kernels] == widths


def test_last_layer_makes_the_pixels_and_is_registered_once() -> None:
    module = decoder()
    assert module.last_layer.weight.shape == (4, 3, 4, 4)
    assert not any("last_layer" in name for name in module.state_dict())
    with torch.no_grad():
        module.last_layer.weight.zero_()
        module.last_layer.bias.fill_(0.25)
    assert torch.equal(module(torch.randn(1, 8, 2, 2)), torch.full((1, 3, 8, 8), 0.25))


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    module = decoder()
    module(torch.randn(4, 8, 4, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "value", "minimum"),
    [
        ("out_channels", 0, 1),
        ("channels", 1, 2),
        ("block_channels", 0, 1),
        ("num_blocks", -1, 0),
        ("num_upsamplings", 0, 1),
    ],
)
def test_an_impossible_size_is_refused(name: str, value: int, minimum: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be at least {minimum}, got {value}"):
        decoder(**{name: value})
