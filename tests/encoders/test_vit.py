"""The transformer encoder: sizes of the published ones, and other grids."""

import pytest
import torch

from vqtrain.encoders.vit import ViTEncoder
from vqtrain.errors import ConfigError


def encoder(**changes: object) -> ViTEncoder:
    sizes = {
        "in_channels": 3,
        "sample_size": (16, 24),
        "patch_size": 8,
        "dim": 16,
        "depth": 1,
        "num_heads": 2,
        "head_dim": None,
        "mlp_dim": None,
        "activation": "tanh",
        "qkv_bias": False,
        "pre_norm": False,
        "positions": "sincos_2d",
    }
    return ViTEncoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"dim": 512, "depth": 8, "num_heads": 8}, 25_306_624),  # ViT-VQGAN small
        ({"dim": 768, "depth": 12, "num_heads": 12}, 85_176_576),  # ViT-VQGAN base
        (  # BSQ-ViT
            {
                "dim": 768,
                "depth": 12,
                "num_heads": 12,
                "activation": "gelu",
                "qkv_bias": True,
                "pre_norm": True,
                "positions": "learned",
            },
            85_991_424,
        ),
    ],
)
def test_published_sizes(sizes: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        module = encoder(sample_size=(256, 256), **sizes)
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def test_each_patch_is_embedded_as_by_a_convolution_of_its_size() -> None:
    module = encoder()
    images = torch.randn(2, 3, 16, 24)
    weight = module.embed.weight.reshape(16, 3, 8, 8)
    embedded = torch.nn.functional.conv2d(images, weight, module.embed.bias, stride=8)
    torch.testing.assert_close(module(images), module.transformer(embedded))


@pytest.mark.parametrize("positions", ["learned", "learned_2d", "sincos_2d", "rope_2d"])
def test_other_sizes_are_taken_too(positions: str) -> None:
    module = encoder(positions=positions)
    assert module(torch.randn(1, 3, 32, 8)).shape == (1, 16, 4, 1) == (1, 16, *module.grid((32, 8)))


@pytest.mark.parametrize("positions", ["learned", "sincos_3d", "rope_3d"])
def test_clips_are_patches_of_frames_too(positions: str) -> None:
    sizes = {"sample_size": (4, 16, 24), "patch_size": [2, 8, 4], "dim": 32, "positions": positions}
    module = encoder(**sizes)
    assert module.downsampling == (2, 8, 4)
    clips = torch.randn(2, 3, 4, 16, 24)
    weight = module.embed.weight.reshape(32, 3, 2, 8, 4)
    embedded = torch.nn.functional.conv3d(clips, weight, module.embed.bias, stride=(2, 8, 4))
    torch.testing.assert_close(module(clips), module.transformer(embedded))
    assert module(torch.randn(1, 3, 6, 8, 24)).shape == (1, 32, *module.grid((6, 8, 24)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample_size": (16, 20)}, "patches of 8 px do not divide a sample of 16 x 20"),
        ({"positions": "rope"}, "positions must be one of learned, .* did you mean rope_[23]d"),
        ({"num_heads": 3}, "num_heads must divide dim 16, got 3"),
        ({"patch_size": 0}, "patch_size must be at least 1 or a list"),
        ({"patch_size": [2, 8, 8]}, "patch_size must be one number or 2, one for each axis"),
        ({"sample_size": (4, 16, 24)}, "patches of 8 px do not divide a sample of 4 x 16 x 24"),
        (
            {"sample_size": (8, 16, 24), "positions": "rope_2d"},
            r"positions=rope_2d needs a grid of 2 axes, got \[1, 2, 3\]",
        ),
        ({"depth": 0}, "depth must be at least 1, got 0"),
    ],
)
def test_an_impossible_size_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder(**change)
