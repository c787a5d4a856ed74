"""A tokenizer in the precision that a user asks for."""

import pytest
import torch

from vqtrain import Tokenizer
from vqtrain.evaluation.settings import SampleSettings


@pytest.mark.parametrize(
    ("precision", "weights", "inside"),
    [
        ("32-true", torch.float32, torch.float32),
        ("bf16-mixed", torch.float32, torch.bfloat16),
        ("16-mixed", torch.float32, torch.float16),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
        ("64-true", torch.float64, torch.float64),
    ],
)
def test_networks_have_the_precision_and_the_codebook_at_least_float32(
    precision: str, weights: torch.dtype, inside: torch.dtype
) -> None:
    settings = SampleSettings(
        image_size=None,
        crop="resize",
        batch_size=1,
        num_workers=0,
        device="cpu",
        precision=precision,
    )
    sizes = {"channels": 4, "block_channels": 2, "num_blocks": 0}
    tokenizer = Tokenizer(
        encoder={"kind": "vqvae", "arguments": {"in_channels": 3, "num_downsamplings": 2, **sizes}},
        codebook={"kind": "fsq", "arguments": {"size": None, "levels": [7, 7], "eps": 1e-3}},
        decoder={"kind": "vqvae", "arguments": {"out_channels": 3, "num_upsamplings": 2, **sizes}},
        channels=3,
    ).eval()
    before = tokenizer.codebook_vectors
    placed = settings.placed(tokenizer)
    assert {p.dtype for p in placed.encoder.parameters()} == {weights}
    assert {p.dtype for p in placed.decoder.parameters()} == {weights}
    assert torch.equal(placed.codebook_vectors.float(), before)
    with settings.autocast():
        latents = placed.latents(torch.rand(1, 3, 16, 16) * 2 - 1)
        quantized = placed.quantize(latents)
        assert latents.dtype == placed.decode_latents(quantized.z_q).dtype == inside
    wide = torch.float64 if precision == "64-true" else torch.float32
    assert quantized.z_q.dtype == quantized.loss.dtype == wide
