"""VAR, beside a forward pass written from its description."""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.app.convert import tokens_of
from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import CheckpointError, ConfigError
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


def quantize(
    network: Any, rest: Tensor, scales: list[int], convolutions: list[int]
) -> tuple[Tensor, Tensor]:
    """Return the ids of all scales and the sum of their codes, as VAR has them."""
    table, last = network.weights[TABLE], scales[-1]
    total, ids = torch.zeros_like(rest), []
    for side, number in zip(scales, convolutions, strict=True):
        vectors = F.interpolate(rest, size=(side, side), mode="area").movedim(1, -1)
        ids.append(torch.cdist(vectors.flatten(1, 2), table).argmin(dim=2))
        z_q = table[ids[-1]].unflatten(1, (side, side)).movedim(-1, 1)
        if side < last:
            z_q = F.interpolate(z_q, size=(last, last), mode="bicubic")
        z_q = 0.5 * z_q + 0.5 * network.conv(f"quantize.quant_resi.qresi_ls.{number}", z_q)
        total, rest = total + z_q, rest - z_q
    return torch.cat(ids, dim=1), total


@torch.no_grad()
def test_ids_and_pixels_follow_its_scales(published_cnn, weights, images, convert):
    network = published_cnn(weights)
    ids, total = quantize(network, network.encode(images, levels=2), SCALES, CONVOLUTIONS)
    tokenizer = convert(weights)
    token_ids = tokenizer.encode(images)
    assert tokens_of(tokenizer) == "48, 680 for 32 x 32 px"
    assert token_ids.shape == (2, 680)
    assert torch.equal(token_ids, ids)
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


INNER = {**PLAIN, "kind": "vq", "size": None, "codebook_weight": 1.0, "commitment_weight": 0.25}
INNER |= {"gradient": "straight_through", "dim": 6}
MULTISCALE = {"size": 24, "scales": [1, 2, 3, 4], "num_convolutions": 4, "inner": INNER}
MULTISCALE |= {"convolution_share": 0.5, "convolution_weight": 1.0}
NETWORK = {"multipliers": [1, 1, 2, 2, 4], "num_blocks": 2, "attention_factors": [16]}
NETWORK |= {"latent_channels": 4, "latent_convolution": True, "side": 64}


@torch.no_grad()
@pytest.mark.parametrize(
    ("changes", "channels"),
    [({}, 7), ({"latent_channels": 8}, 8), ({"latent_convolution": False}, 6)],
    ids=["a channel for the bias", "latents have one left", "no bias meets the border"],
)
def test_an_exported_tokenizer_is_the_same_in_its_code(
    published_cnn, cnn_tokenizer, tmp_path, changes, channels
):
    tokenizer = cnn_tokenizer("multiscale", MULTISCALE, **NETWORK | changes)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    agreement = VAR().export(tokenizer, tmp_path, images=[images])
    assert (agreement.ids, agreement.other_ids) == (2 * 30, 0)
    written = torch.load(tmp_path / f"vae_ch32v24z{channels}.pth")
    expected = published_cnn.shapes(
        channels=32, multipliers=[1, 1, 2, 2, 4], latents=channels, kernel=3, is_fused=True
    ) | quantizer(24, channels)
    expected["quantize.ema_vocab_hit_SV"] = (4, 24)
    assert len(expected) == 324
    assert {name: tuple(item.shape) for name, item in written.items()} == expected
    network = published_cnn(written)
    ids, total = quantize(network, network.encode(images, 5), [1, 2, 3, 4], [0, 1, 2, 3])
    assert torch.equal(tokenizer.encode(images), ids)
    assert len(ids.unique()) > 8
    pixels = network.decode(total, levels=5).clamp(-1, 1)
    torch.testing.assert_close(tokenizer.decode(ids), pixels, atol=1e-4, rtol=0)


def test_a_published_file_comes_back_as_it_was(published_cnn, tmp_path):
    shapes = published_cnn.shapes(
        channels=32, multipliers=[1, 1, 2, 2, 4], latents=8, kernel=3, is_fused=True
    )
    weights = published_cnn.drawn(shapes | quantizer(48, 8))
    weights["quantize.ema_vocab_hit_SV"] = torch.zeros(4, 48)
    torch.save(weights, tmp_path / "vae.pth")
    tokenizer = VAR(scales=[1, 2, 3, 4]).convert(tmp_path / "vae.pth")
    (tmp_path / "out").mkdir()
    VAR().export(tokenizer, tmp_path / "out", images=[torch.rand(1, 3, 64, 64)])
    written = torch.load(tmp_path / "out/vae_ch32v48z8.pth")
    assert sorted(written) == sorted(weights)
    assert all(torch.equal(item, weights[name]) for name, item in written.items())
    assert VAR().convert(tmp_path / "out").codebook.scales == (1, 2, 3, 4)


FSQ = {"kind": "fsq", "size": None, "levels": [4, 6], "eps": 1e-3}
REFUSED = {
    "codebook": ("vq", {**INNER, "size": 4}, {}, "has codebook=multiscale, not vq$"),
    "inner": ("multiscale", {"inner": FSQ}, {}, "one table, which codebook=fsq does not$"),
    "smoothing": (
        "multiscale",
        {"num_convolutions": 2},
        {},
        "num_convolutions=4 and codebook.convolution_share=0.5, not 2 and 0.5$",
    ),
    "attention": (
        "multiscale",
        {},
        {"attention_factors": []},
        r"has networks of attention_factors=\[16\], not \[\]$",
    ),
    "blocks": ("multiscale", {}, {"num_blocks": 1}, "has networks of num_blocks=2, not 1$"),
    "groups": ("multiscale", {}, {"channels": 8}, "must be a multiple of 32, got 8$"),
}


@pytest.mark.parametrize(("kind", "codebook", "levels", "said"), REFUSED.values(), ids=REFUSED)
def test_what_its_code_cannot_have_is_refused(
    cnn_tokenizer, tmp_path, kind, codebook, levels, said
):
    arguments = {**MULTISCALE, **codebook} if kind == "multiscale" else codebook
    arguments = {key: value for key, value in arguments.items() if kind != "vq" or key != "kind"}
    tokenizer = cnn_tokenizer(kind, arguments, **NETWORK | levels)
    with pytest.raises(ConfigError, match=f"^VAR's VQVAE .*{said}"):
        VAR().export(tokenizer, tmp_path, images=[])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [None, "{", "{}", "[]", '{"v_patch_nums": 4}'])
def test_a_folder_without_scales_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot read v_patch_nums in"):
        VAR().convert(tmp_path)
