"""The decoder of EnCodec: its size, and what is before and after what."""

from typing import Any

import pytest
import torch

from vqtrain.build import build
from vqtrain.decoders.seanet import SEANetDecoder
from vqtrain.layers.causal import in_steps

SIZES: dict[str, Any] = {
    "out_channels": 1,
    "channels": 32,
    "strides": [2, 4, 5, 8],
    "latent_channels": 128,
    "num_blocks": 1,
    "dilation_base": 2,
    "compress": 2,
    "convolved_shortcut": True,
    "activation": "elu",
    "kernel_size": 7,
    "last_kernel_size": 7,
    "block_kernel_size": 3,
    "num_lstm_layers": 2,
    "weight_norm": True,
    "causal": True,
    "padding": "zeros",
    "output": "linear",
}
SMALL = {"channels": 4, "strides": [2, 3], "latent_channels": 5}


def decoder(**changes: object) -> SEANetDecoder:
    return build("decoder", "seanet", {**SIZES, **SMALL, **changes}).eval()


def test_published_size() -> None:
    with torch.device("meta"):
        module = build("decoder", "seanet", SIZES)
    assert sum(parameter.numel() for parameter in module.parameters()) == 14_851_810 - 7_425_792
    assert module.size((75,)) == (24_000,)


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_a_causal_decoder_hears_nothing_later(causal: bool) -> None:
    torch.manual_seed(0)
    module = decoder(causal=causal, num_lstm_layers=0)
    z_q = torch.randn(1, 5, 12)
    later = z_q.clone()
    later[..., 5:] = 0
    first = int(((module(z_q) - module(later))[0, 0].abs() > 0).long().argmax())
    assert first == 30 if causal else first < 30


@torch.no_grad()
def test_pieces_are_the_whole_bit_for_bit() -> None:
    torch.manual_seed(0)
    module = decoder(output="tanh")
    z_q, unit = 3 * torch.randn(2, 5, 45), module.latents_at_once
    whole = in_steps(module, z_q, [unit] * 3)
    torch.testing.assert_close(whole, module(z_q))
    begun = in_steps(module, z_q[..., : 2 * unit], [unit] * 2)
    assert torch.equal(begun, whole[..., : begun.shape[-1]])
    assert whole.abs().max() <= 1
    assert not torch.equal(whole, in_steps(decoder(), z_q, [unit] * 3))
