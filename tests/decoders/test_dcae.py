"""The decoder of DC-AE against diffusers' own, with the same weights."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_dc import Decoder
from torch import nn

from vqtrain.decoders.dcae import DCAEDecoder
from vqtrain.errors import ConfigError

SIZES: dict[str, Any] = {
    "out_channels": 3,
    "channels": 8,
    "multipliers": [1, 2, 4],
    "num_blocks": [1, 2, 1],
    "attention_factors": [4],
    "head_dim": 8,
    "kernel_sizes": [5],
    "latent_channels": 4,
    "latent_shortcut": True,
    "upsample": "interpolate",
    "norm": "rms",
    "activation": "silu",
    "output_activation": "relu",
}
RESIDUAL, ATTENTION = "ResBlock", "EfficientViTBlock"
THEIRS: dict[str, Any] = {
    "in_channels": 3,
    "latent_channels": 4,
    "attention_head_dim": 8,
    "block_type": (RESIDUAL, RESIDUAL, ATTENTION),
    "block_out_channels": (8, 16, 32),
    "layers_per_block": (1, 2, 1),
    "qkv_multiscales": ((), (), (5,)),
    "upsample_block_type": "interpolate",
}
VARIANTS = {
    "interpolate": ({}, {}),
    "pixel_shuffle": (
        {"upsample": "pixel_shuffle"},
        {"upsample_block_type": "pixel_shuffle"},
    ),
    "half size": (
        {"num_blocks": [0, 1, 1], "upsample": "pixel_shuffle"},
        {"layers_per_block": (0, 1, 1), "upsample_block_type": "pixel_shuffle"},
    ),
    "half size, interpolated": ({"num_blocks": [0, 1, 1]}, {"layers_per_block": (0, 1, 1)}),
    "no shortcut": ({"latent_shortcut": False}, {"in_shortcut": False}),
    "other activations": (
        {"activation": "relu", "output_activation": "silu"},
        {"act_fn": "relu", "conv_act_fn": "silu"},
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), VARIANTS.values(), ids=VARIANTS)
def test_images_and_gradients_are_those_of_the_original(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    original, module = Decoder(**{**THEIRS, **theirs}), DCAEDecoder(**{**SIZES, **ours})
    for parameter in original.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    module.load_state_dict(original.state_dict())  # names and shapes are the same
    for grid in ((4, 6), (2, 3)):
        z_q = torch.randn(2, 4, *grid, requires_grad=True)
        images, expected = module(z_q), original(z_q)
        assert images.shape == (2, 3, *module.size(grid))
        torch.testing.assert_close(images, expected, rtol=1e-5, atol=1e-5)
        of_ours, of_theirs = (
            torch.autograd.grad(y.square().mean(), z_q)[0] for y in (images, expected)
        )
        torch.testing.assert_close(of_ours, of_theirs, rtol=1e-4, atol=1e-5)


def test_a_block_without_a_norm_is_its_convolutions() -> None:
    module = DCAEDecoder(**{**SIZES, "norm": "none", "activation": "relu"})
    block = module.up_blocks[0][1]
    x = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(block(x), x + block.conv2(block.conv1(x).relu()))
    assert block.conv2.bias is not None


@pytest.mark.parametrize("num_blocks", [1, [0, 1, 1]], ids=["whole size", "half size"])
def test_the_last_layer_is_the_convolution_that_gives_pixels(num_blocks: int | list[int]) -> None:
    module = DCAEDecoder(**{**SIZES, "num_blocks": num_blocks})
    assert isinstance(module.last_layer, nn.Conv2d)
    last = [name for name, _ in module.named_parameters()][-2:]
    assert {id(module.get_parameter(name)) for name in last} == {
        id(parameter) for parameter in module.last_layer.parameters()
    }


def test_the_published_size() -> None:
    large = {"channels": 128, "multipliers": [1, 2, 4, 4, 8, 8], "attention_factors": [8, 16, 32]}
    large |= {"head_dim": 32, "latent_channels": 32, "num_blocks": 3}
    with torch.device("meta"):
        module = DCAEDecoder(**{**SIZES, **large})
    assert sum(parameter.numel() for parameter in module.parameters()) == 159_223_171  # SANA's


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_blocks": [1, 1]}, r"num_blocks must be a number of at least 1, or 3 of them"),
        ({"latent_channels": 5}, r"latent_channels must divide the 32 channels"),
        ({"norm": "batch"}, r"norm must be one of rms, none, got 'batch'"),
        ({"activation": "gelu"}, r"activation must be one of silu, relu, got 'gelu'"),
        ({"upsample": "nearest"}, r"upsample must be one of pixel_shuffle, interpolate"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DCAEDecoder(**{**SIZES, **sizes})
