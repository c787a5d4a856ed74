"""The transformer decoder: sizes of the published ones."""

import pytest
import torch

from vqtrain.decoders.vit import ViTDecoder
from vqtrain.errors import ConfigError


def decoder(**changes: object) -> ViTDecoder:
    sizes = {
        "out_channels": 3,
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
        "head": "linear",
    }
    return ViTDecoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"dim": 512, "depth": 8, "num_heads": 8}, 25_306_115),  # ViT-VQGAN small
        ({"dim": 768, "depth": 12, "num_heads": 12}, 85_175_811),  # ViT-VQGAN base
        ({"dim": 1280, "depth": 32, "num_heads": 16, "head_dim": 64}, 587_860_483),  # large
        (  # BSQ-ViT
            {
                "dim": 768,
                "depth": 12,
                "num_heads": 12,
                "activation": "gelu",
                "qkv_bias": True,
                "pre_norm": True,
                "positions": "learned",
                "head": "tanh_mlp",
            },
            88_796_352,
        ),
    ],
)
def test_published_sizes(sizes: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        module = decoder(sample_size=(256, 256), **sizes)
    assert sum(parameter.numel() for parameter in module.parameters()) == count


@pytest.mark.parametrize("head", ["linear", "tanh_mlp", "conv"])
def test_latents_become_pixels_of_their_patches(head: str) -> None:
    module = decoder(head=head)
    z_q = torch.randn(2, 16, 4, 1)
    assert module(z_q).shape == (2, 3, 32, 8) == (2, 3, *module.size((4, 1)))
    torch.testing.assert_close(module(z_q), module.head(module.transformer(z_q)))


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="patches of 8 px do not divide a sample of 16 x 20"):
        decoder(sample_size=(16, 20))
