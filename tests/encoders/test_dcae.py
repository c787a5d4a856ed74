"""The encoder of DC-AE against diffusers' own, with the same weights."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_dc import Encoder

from vqtrain.encoders.dcae import DCAEEncoder
from vqtrain.errors import ConfigError

SIZES: dict[str, Any] = {
    "in_channels": 3,
    "channels": 8,
    "multipliers": [1, 2, 4],
    "num_blocks": [1, 2, 1],
    "attention_factors": [2, 4],
    "head_dim": 8,
    "kernel_sizes": [5],
    "latent_channels": 4,
    "latent_shortcut": True,
    "downsample": "conv",
}
RESIDUAL, ATTENTION = "ResBlock", "EfficientViTBlock"
THEIRS: dict[str, Any] = {
    "in_channels": 3,
    "latent_channels": 4,
    "attention_head_dim": 8,
    "block_type": (RESIDUAL, ATTENTION, ATTENTION),
    "block_out_channels": (8, 16, 32),
    "layers_per_block": (1, 2, 1),
    "qkv_multiscales": ((), (5,), (5,)),
    "downsample_block_type": "conv",
}
VARIANTS = {
    "conv": ({}, {}),
    "pixel_unshuffle": (
        {"downsample": "pixel_unshuffle"},
        {"downsample_block_type": "pixel_unshuffle"},
    ),
    "half size": (
        {"num_blocks": [0, 1, 1], "downsample": "pixel_unshuffle"},
        {"layers_per_block": (0, 1, 1), "downsample_block_type": "pixel_unshuffle"},
    ),
    "no shortcut": ({"latent_shortcut": False}, {"out_shortcut": False}),
    "no more scales": ({"kernel_sizes": []}, {"qkv_multiscales": ((), (), ())}),
    "two more scales": ({"kernel_sizes": [3, 5]}, {"qkv_multiscales": ((), (3, 5), (3, 5))}),
}


@pytest.mark.parametrize(("ours", "theirs"), VARIANTS.values(), ids=VARIANTS)
def test_latents_and_gradients_are_those_of_the_original(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    original, module = Encoder(**{**THEIRS, **theirs}), DCAEEncoder(**{**SIZES, **ours})
    for parameter in original.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    module.load_state_dict(original.state_dict())  # names and shapes are the same
    # 16 x 12 latents, more than channels of a head, and 2 x 3, fewer: they compute them otherwise.
    for size in ((64, 48), (8, 12)):
        images = torch.randn(2, 3, *size, requires_grad=True)
        latents, expected = module(images), original(images)
        assert latents.shape == (2, 4, *module.grid(size))
        torch.testing.assert_close(latents, expected, rtol=1e-5, atol=1e-5)
        of_ours, of_theirs = (
            torch.autograd.grad(y.square().mean(), images)[0] for y in (latents, expected)
        )
        torch.testing.assert_close(of_ours, of_theirs, rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        # SANA's, 32 px per latent
        ({"num_blocks": [2, 2, 2, 3, 3, 3], "kernel_sizes": [5]}, 153_027_104),
        # That of ImageNet, 64 px per latent
        (
            {
                "multipliers": [1, 2, 4, 4, 8, 8, 16],
                "num_blocks": [0, 4, 8, 2, 2, 2, 2],
                "attention_factors": [8, 16, 32, 64],
                "latent_channels": 128,
                "downsample": "pixel_unshuffle",
            },
            None,
        ),
    ],
)
def test_published_sizes(sizes: dict[str, Any], count: int | None) -> None:
    large = {"channels": 128, "multipliers": [1, 2, 4, 4, 8, 8], "attention_factors": [8, 16, 32]}
    large |= {"head_dim": 32, "latent_channels": 32, "kernel_sizes": [], **sizes}
    with torch.device("meta"):
        module = DCAEEncoder(**{**SIZES, **large})
        stages = len(large["multipliers"])
        kernels = tuple(large["kernel_sizes"])
        original = Encoder(
            in_channels=3,
            latent_channels=large["latent_channels"],
            block_type=(RESIDUAL,) * 3 + (ATTENTION,) * (stages - 3),
            block_out_channels=tuple(128 * factor for factor in large["multipliers"]),
            layers_per_block=tuple(large["num_blocks"]),
            qkv_multiscales=((),) * 3 + (kernels,) * (stages - 3),
            downsample_block_type=large.get("downsample", "conv"),
        )
    found, expected = (
        {name: weight.shape for name, weight in each.state_dict().items()}
        for each in (module, original)
    )
    assert found == expected
    assert count in (None, sum(parameter.numel() for parameter in module.parameters()))


def test_large_latents_in_half_precision_stay_finite() -> None:
    module = DCAEEncoder(**SIZES)
    with torch.autocast("cpu", torch.bfloat16):
        wide = module(torch.randn(1, 3, 16, 16) * 100)
    assert wide.isfinite().all()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_blocks": [1, 0, 1]}, r"num_blocks must be .* or 3 of them, .*, got \[1, 0, 1\]$"),
        ({"num_blocks": [1, 1]}, r"num_blocks must be a number of at least 1, or 3 of them"),
        ({"num_blocks": 0}, r"num_blocks must be a number of at least 1"),
        ({"num_blocks": [0], "multipliers": [1], "attention_factors": []}, r"num_blocks must be"),
        ({"multipliers": [1, 3, 4]}, r"multipliers give stages of 8 and 24 channels: four times"),
        ({"latent_channels": 5}, r"latent_channels must divide the 32 channels .*, got 5; or"),
        ({"attention_factors": [3]}, r"attention_factors must be taken from \[1, 2, 4\], got 3$"),
        ({"head_dim": 5}, r"head_dim must divide the 16 channels of the stage of factor 2, got 5$"),
        ({"kernel_sizes": [4]}, r"kernel_sizes must be a list of odd numbers, got \[4\]$"),
        ({"kernel_sizes": [-1]}, r"kernel_sizes must be a list of odd numbers, got \[-1\]$"),
        ({"downsample": "pool"}, r"downsample must be one of pixel_unshuffle, conv, got 'pool'"),
        (
            {"channels": 6, "head_dim": 6, "latent_channels": 3, "downsample": "pixel_unshuffle"},
            r"needs stages with a multiple of 4 channels, got \[6, 12, 24\]$",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DCAEEncoder(**{**SIZES, **sizes})
