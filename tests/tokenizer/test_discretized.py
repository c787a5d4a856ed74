"""A continuous tokenizer with a codebook of its latents, against both tokenizers by hand."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.errors import ConfigError
from vqtrain.tokenizer.discretized import compose

NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1}
CNN = {
    "in_channels": 5,
    "channels": 8,
    "multipliers": [1],
    "num_blocks": 1,
    "attention_factors": [],
    "latent_channels": 5,
    "dropout": 0.0,
}
KL = {"kind": "kl", "arguments": {"size": None, "dim": 5, "kl_weight": 1.0}}
FSQ = {"kind": "fsq", "arguments": {"size": 64, "levels": None, "eps": 1e-3}}


def scattered(tokenizer: Tokenizer) -> Tokenizer:
    """Give every weight, also those that begin as zero, a value that matters."""
    for name, parameter in tokenizer.named_parameters():
        if not name.startswith("codebook."):
            torch.nn.init.normal_(parameter, std=0.3)
    return tokenizer.eval()


def original(codebook: Mapping[str, Any] = KL, **changes: Any) -> Tokenizer:
    encoder = {"in_channels": 3, "num_downsamplings": 2, **NETWORK}
    decoder = {"out_channels": 3, "num_upsamplings": 2, **NETWORK}
    return scattered(
        Tokenizer(
            encoder={"kind": "vqvae", "arguments": encoder},
            codebook=codebook,
            decoder={"kind": "vqvae", "arguments": decoder},
            channels=3,
            training={"image_size": 16, "metrics": {"val/psnr": 30.0}},
            **changes,
        )
    )


def of_latents(codebook: Mapping[str, Any] = FSQ, **changes: Any) -> Tokenizer:
    parts = {
        "encoder": {"kind": "identity", "arguments": {"in_channels": 5}},
        "codebook": codebook,
        "decoder": {
            "kind": "rectifier",
            "arguments": {"out_channels": 5, "channels": 8, "num_blocks": 1},
        },
        "channels": 5,
        "pixel_range": (-3.0, 7.0),
    }
    return scattered(Tokenizer(**{**parts, **changes}))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", ["fsq", "grouped"])
@torch.no_grad()
def test_ids_and_samples_are_those_of_both_tokenizers_in_turn(kind: str) -> None:
    inner = {"kind": "fsq", "size": None, "levels": None, "eps": 1e-3}
    grouped = {"kind": "grouped", "arguments": {"size": 64, "num_codebooks": 2, "inner": inner}}
    first = original().double()
    second = of_latents(FSQ if kind == "fsq" else grouped).double()
    composed = compose(first, second)
    assert composed.training_summary == {"image_size": 16}
    assert composed.pixel_range is None
    samples = torch.rand(2, 3, 16, 24, dtype=torch.float64) * 2 - 1
    means = first.latents(samples)[:, :5]
    stored = (means - 2) / 5  # what data.range=[-3,7] makes of them
    quantized = second.quantize(second.project_in(stored))
    latents = second.latents(stored) if stored.abs().max() <= 1 else second.project_in(stored)
    torch.testing.assert_close(composed.latents(samples), latents, rtol=0, atol=1e-9)
    ids = composed.encode(samples)
    assert torch.equal(ids.reshape(quantized.token_ids.shape), quantized.token_ids)
    assert len(ids.unique()) > 4
    again: Tensor = second.decode_latents(quantized.z_q) * 5 + 2
    expected = first.decode_latents(again).clamp(-1, 1)
    torch.testing.assert_close(composed.decode(ids), expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_it_saves_and_loads_in_float32(tmp_path) -> None:
    composed = compose(original(pixel_range=(0.0, 4095.0)), of_latents())
    composed.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    assert loaded.pixel_range == (0.0, 4095.0)
    samples = torch.rand(1, 3, 8, 12) * 2 - 1
    assert torch.equal(loaded.encode(samples), composed.encode(samples))
    assert torch.equal(loaded.reconstruct(samples), composed.reconstruct(samples))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"codebook": FSQ}, {}, "the tokenizer has token ids already"),
        (
            {},
            {"channels": 4, "encoder": {"kind": "identity", "arguments": {"in_channels": 4}}},
            "the codebook is of latents of 4 channels, and those of the tokenizer have 5",
        ),
        (
            {},
            {"encoder": {"kind": "cnn", "arguments": CNN}},
            "must be trained with encoder=identity, got cnn",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(original(**first), of_latents(**second))
