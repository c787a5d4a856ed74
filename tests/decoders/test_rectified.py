"""The decoder of rectified latents: its two decoders one after the other, and what it refuses."""

from collections.abc import Mapping

import pytest
import torch

from vqtrain.decoders.rectified import RectifiedDecoder
from vqtrain.errors import ConfigError

RECTIFIER = {"kind": "rectifier", "channels": 8, "num_blocks": 1}
VQVAE = {"kind": "vqvae", "channels": 8, "block_channels": 4, "num_blocks": 1}
VIT = {
    "kind": "vit",
    "patch_size": 4,
    "dim": 8,
    "depth": 1,
    "num_heads": 2,
    "head_dim": None,
    "mlp_dim": None,
    "activation": "gelu",
    "qkv_bias": False,
    "pre_norm": False,
    "positions": "learned",
    "head": "linear",
}


def decoder(
    inner: Mapping[str, object] = VQVAE | {"num_upsamplings": 2}, **changes: object
) -> RectifiedDecoder:
    arguments = {"out_channels": 3, "sample_size": None, "latent_channels": 5}
    arguments |= {"rectifier": RECTIFIER, "inner": inner}
    return RectifiedDecoder(**{**arguments, **changes})  # type: ignore[arg-type]  # as above


def test_it_rectifies_maps_the_channels_and_decodes() -> None:
    torch.manual_seed(0)
    module = decoder().double()
    torch.nn.init.normal_(module.rectifier.last_layer.weight)
    assert (module.in_channels, module.upsampling, module.size((2, 3))) == (5, (4, 4), (8, 12))
    assert module.last_layer is module.inner.last_layer
    z_q = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    weight, bias = module.between.weight[..., 0, 0], module.between.bias
    latents = torch.einsum("dc,bchw->bdhw", weight, module.rectifier(z_q))
    expected = module.inner(latents + bias[:, None, None])
    torch.testing.assert_close(module(z_q), expected, rtol=0, atol=1e-12)


def test_the_inner_decoder_gets_the_size_that_it_asks_for() -> None:
    module = decoder(VIT, sample_size=(8, 12))
    assert module.sample_size == module.inner.sample_size
    assert module(torch.randn(1, 5, 2, 3)).shape == (1, 3, 8, 12)
    assert decoder().sample_size is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inner": {"kind": "cmm"}}, "inner.kind: unknown kind 'cmm'"),
        ({"inner": VQVAE}, "^inner.num_upsamplings is missing"),
        (
            {"rectifier": RECTIFIER | {"channels": 0}},
            "rectifier.channels must be at least 1, got 0",
        ),
        ({"rectifier": {}}, "rectifier.kind must be the word of a decoder, got None"),
        ({"latent_channels": 0}, "latent_channels must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decoder(**changes)
