"""The encoder of EnCodec: its size, and what is before and after what."""

from typing import Any

import pytest
import torch

from vqtrain.build import build
from vqtrain.encoders.seanet import SEANetEncoder
from vqtrain.errors import ConfigError
from vqtrain.layers.causal import in_steps

SIZES: dict[str, Any] = {
    "in_channels": 1,
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
}
SMALL = {"channels": 4, "strides": [2, 3], "latent_channels": 5}


def encoder(**changes: object) -> SEANetEncoder:
    return build("encoder", "seanet", {**SIZES, **SMALL, **changes}).eval()


def test_published_size() -> None:
    with torch.device("meta"):
        module = build("encoder", "seanet", SIZES)
    # Half of the 14,851,810 of transformers' EncodecModel, whose decoder has the other half.
    assert sum(parameter.numel() for parameter in module.parameters()) == 7_425_792
    assert module.grid((24_000,)) == (75,)


@pytest.mark.parametrize(
    ("causal", "padding"), [(True, "zeros"), (True, "reflect"), (False, "zeros")]
)
@torch.no_grad()
def test_a_causal_encoder_hears_nothing_later(causal: bool, padding: str) -> None:
    torch.manual_seed(0)
    module = encoder(causal=causal, padding=padding, num_lstm_layers=0)
    assert module.causal == (causal and padding == "zeros")
    sounds = torch.randn(1, 1, 72)
    later = sounds.clone()
    later[..., 5 * 6 :] = 0
    moved = (module(sounds) - module(later))[0].abs().amax(0) > 0
    # By the reflection the first latent sees 6 after it.
    assert int(moved.long().argmax()) == (5 if module.causal else 0)


@torch.no_grad()
def test_pieces_are_the_whole_bit_for_bit() -> None:
    torch.manual_seed(0)
    module = encoder(activation="snake", num_blocks=2)
    sounds, unit = torch.randn(2, 1, 6 * 45), 6 * module.latents_at_once
    whole = in_steps(module, sounds, [unit] * 3)
    torch.testing.assert_close(whole, module(sounds))
    begun = in_steps(module, sounds[..., : 2 * unit], [unit] * 2)
    assert torch.equal(begun, whole[..., : begun.shape[-1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strides": [1]}, r"strides must be a list of strides, each at least 2, such as"),
        ({"kernel_size": 4}, "kernel_size must be an odd number of at least 1, got 4"),
        ({"padding": "zero"}, "padding must be one of zeros, reflect, got 'zero'; did you mean"),
        ({"activation": "gelu"}, "activation must be one of relu, elu, snake, got 'gelu'"),
    ],
)
def test_an_impossible_size_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder(**change)
