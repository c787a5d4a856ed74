"""VAR, beside a forward pass written from its description."""

from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.app.convert import tokens_of
from vqtrain.errors import CheckpointError
from vqtrain.formats.var import VAR

Weights = dict[str, Tensor]
TABLE = "quantize.embedding.weight"
SCALES = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]
# The convolution of each scale: the nearest of four, evenly spaced from 1/12 to 11/12.
CONVOLUTIONS = [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
SMALL = {"channels": 32, "multipliers": [1, 2], "latents": 8}


def quantizer(size: int, dim: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {TABLE: (size, dim)}
    shapes["quantize.ema_vocab_hit_SV"] = (len(SCALES), size)
    for number in range(4):
        name = f"quantize.quant_resi.qresi_ls.{number}"
        shapes |= {f"{name}.weight": (dim, dim, 3, 3), f"{name}.bias": (dim,)}
    return shapes


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def weights(published_cnn, images) -> Weights:
    """A small network by the names of the published file, with codes among its latents."""
    shapes = published_cnn.shapes(**SMALL, kernel=3, is_fused=True) | quantizer(48, 8)
    drawn = published_cnn.drawn(shapes)
    latents = published_cnn(drawn).encode(images, levels=2).movedim(1, -1).flatten(0, 2)
    shrinking = torch.linspace(1, 0.1, 48)[:, None]
    drawn[TABLE] = latents[torch.randperm(len(latents))[:48]] * shrinking
    return drawn


@pytest.fixture
def convert(tmp_path) -> Callable[[Weights], object]:
    def converted(weights: Weights) -> object:
        torch.save(weights, tmp_path / "vae.pth")
        return VAR().convert(tmp_path / "vae.pth")

    return converted


def test_names_and_sizes_are_those_of_the_published_file(published_cnn):
    shapes = published_cnn.shapes(
        channels=160, multipliers=[1, 1, 2, 2, 4], latents=32, kernel=3, is_fused=True
    )
    shapes |= quantizer(4096, 32)
    assert len(shapes) == 324
    assert shapes["encoder.down.4.attn.0.qkv.weight"] == (1920, 640, 1, 1)
    del shapes["quantize.ema_vocab_hit_SV"]
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + prod(shape)
    assert counts == {
        "encoder": 44_107_872,
        "decoder": 64_653_923,
        "quantize": 168_064,
        "quant_conv": 9_248,
        "post_quant_conv": 9_248,
    }


@torch.no_grad()
def test_ids_and_pixels_follow_its_scales(published_cnn, weights, images, convert):
    network, table = published_cnn(weights), weights[TABLE]
    rest = network.encode(images, levels=2)
    total, ids = torch.zeros_like(rest), []
    for side, number in zip(SCALES, CONVOLUTIONS, strict=True):
        vectors = F.interpolate(rest, size=(side, side), mode="area").movedim(1, -1)
        ids.append(torch.cdist(vectors.flatten(1, 2), table).argmin(dim=2))
        z_q = table[ids[-1]].view(2, side, side, 8).movedim(-1, 1)
        if side < 16:
            z_q = F.interpolate(z_q, size=(16, 16), mode="bicubic")
        z_q = 0.5 * z_q + 0.5 * network.conv(f"quantize.quant_resi.qresi_ls.{number}", z_q)
        total, rest = total + z_q, rest - z_q
    tokenizer = convert(weights)
    token_ids = tokenizer.encode(images)
    assert tokens_of(tokenizer) == "680 for 32 x 32 px"
    assert token_ids.shape == (2, 680)
    assert torch.equal(token_ids, torch.cat(ids, dim=1))
    assert len(token_ids.unique()) > 24
    made = tokenizer(images).samples
    torch.testing.assert_close(made, network.decode(total, levels=2), atol=1e-5, rtol=1e-5)
    assert torch.equal(tokenizer.decode(token_ids), made.clamp(-1, 1))


def test_the_training_can_go_on(weights, convert):
    tokenizer = convert(weights)
    inner = tokenizer.config["codebook"]["arguments"]["inner"]
    assert (inner["codebook_weight"], inner["commitment_weight"]) == (1.0, 0.25)


SAID = {
    "missing": ["{key} is missing"],
    "renamed": ["{key} is missing", "{key}_ is unknown"],
    "misshaped": ["{key} is [", "] instead of ["],
}


@pytest.mark.parametrize(("edit", "said"), SAID.items(), ids=list(SAID))
def test_a_difference_is_named(published_cnn, weights, convert, edit, said):
    for key in (
        "encoder.mid.attn_1.qkv.weight",
        "quant_conv.weight",
        TABLE,
        "quantize.quant_resi.qresi_ls.3.weight",
    ):
        changed = published_cnn(weights).without(key, then=edit, axis=1 if key == TABLE else 0)
        with pytest.raises(CheckpointError) as raised:
            convert(changed)
        for words in said:
            assert words.format(key=key) in str(raised.value)


def test_other_scales_can_be_named(weights, tmp_path: Path):
    torch.save(weights, tmp_path / "vae.pth")
    tokenizer = VAR(scales=[1, 2, 4, 8]).convert(tmp_path / "vae.pth")
    assert tokenizer.token_shape(16, 16) == (85,)
