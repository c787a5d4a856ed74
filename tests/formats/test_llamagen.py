"""LlamaGen, beside a forward pass written from its description."""

import argparse
import json
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain import Tokenizer
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import split_kind
from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.formats.llamagen import LlamaGen, checked_network, to_theirs

Weights = dict[str, Tensor]


def norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)


def conv(weights: Weights, name: str, x: Tensor, **options: int) -> Tensor:
    padding = weights[f"{name}.weight"].shape[-1] // 2
    options = {"padding": padding, **options}
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)


def block(weights: Weights, name: str, x: Tensor) -> Tensor:
    h = conv(weights, f"{name}.conv1", F.silu(norm(weights, f"{name}.norm1", x)))
    h = conv(weights, f"{name}.conv2", F.silu(norm(weights, f"{name}.norm2", h)))
    shortcut = f"{name}.nin_shortcut"
    return h + (conv(weights, shortcut, x) if f"{shortcut}.weight" in weights else x)


def attention(weights: Weights, name: str, x: Tensor) -> Tensor:
    h = norm(weights, f"{name}.norm", x)
    q, k, v = (conv(weights, f"{name}.{part}", h).flatten(2) for part in "qkv")
    shares = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / q.shape[1] ** 0.5, dim=2)
    gathered = torch.einsum("bij,bcj->bci", shares, v).view_as(x)
    return x + conv(weights, f"{name}.proj_out", gathered)


def middle(weights: Weights, side: str, x: Tensor) -> Tensor:
    x = attention(weights, f"{side}.mid.1", block(weights, f"{side}.mid.0", x))
    return block(weights, f"{side}.mid.2", x)


def level(weights: Weights, name: str, x: Tensor) -> Tensor:
    for index in range(3):
        if f"{name}.res.{index}.norm1.weight" in weights:
            x = block(weights, f"{name}.res.{index}", x)
        if f"{name}.attn.{index}.norm.weight" in weights:
            x = attention(weights, f"{name}.attn.{index}", x)
    return x


def encode(weights: Weights, images: Tensor) -> Tensor:
    h = level(weights, "encoder.conv_blocks.0", conv(weights, "encoder.conv_in", images))
    down = "encoder.conv_blocks.0.downsample.conv"
    h = conv(weights, down, F.pad(h, (0, 1, 0, 1)), stride=2, padding=0)
    h = middle(weights, "encoder", level(weights, "encoder.conv_blocks.1", h))
    h = conv(weights, "encoder.conv_out", F.silu(norm(weights, "encoder.norm_out", h)))
    return conv(weights, "quant_conv", h)


def decode(weights: Weights, z_q: Tensor) -> Tensor:
    h = conv(weights, "decoder.conv_in", conv(weights, "post_quant_conv", z_q))
    h = level(weights, "decoder.conv_blocks.0", middle(weights, "decoder", h))
    h = F.interpolate(h, scale_factor=2.0, mode="nearest")
    h = conv(weights, "decoder.conv_blocks.0.upsample.conv", h)
    h = level(weights, "decoder.conv_blocks.1", h)
    return conv(weights, "decoder.conv_out", F.silu(norm(weights, "decoder.norm_out", h)))


def save(tmp_path: Path, **sections: object) -> Path:
    # Its checkpoints hold the command line of the training as well.
    torch.save({**sections, "args": argparse.Namespace(lr=1e-4), "steps": 5}, tmp_path / "vq.pt")
    return tmp_path / "vq.pt"


def test_ids_pixels_and_loss_follow_directions(llamagen_weights, images, tmp_path):
    z = F.normalize(encode(llamagen_weights, images), dim=1)
    table = F.normalize(llamagen_weights["quantize.embedding.weight"], dim=1)
    ids = torch.einsum("bdhw,nd->bnhw", z, table).argmax(dim=1)
    z_q = table[ids].movedim(-1, 1)
    tokenizer = LlamaGen().convert(save(tmp_path, model=llamagen_weights))
    assert torch.equal(tokenizer.encode(images), ids)
    assert len(ids.unique()) > 4
    with torch.no_grad():
        reconstruction = tokenizer(images)
    expected = decode(llamagen_weights, z_q)
    torch.testing.assert_close(reconstruction.samples, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reconstruction.quantized.loss, 1.25 * F.mse_loss(z_q, z))


def test_the_loss_has_its_weights_where_they_belong(llamagen_weights, tmp_path):
    arguments = (
        LlamaGen().convert(save(tmp_path, model=llamagen_weights)).config["codebook"]["arguments"]
    )
    assert (arguments["codebook_weight"], arguments["commitment_weight"]) == (1.0, 0.25)


@pytest.mark.parametrize(("ema", "bias"), [(True, 2.0), (False, 1.0)])
def test_averages_are_used_if_they_are_there(llamagen_weights, tmp_path, ema, bias):
    plain = {**llamagen_weights, "quant_conv.bias": torch.full((8,), 1.0)}
    averages = {**llamagen_weights, "quant_conv.bias": torch.full((8,), 2.0)}
    tokenizer = LlamaGen(ema=ema).convert(save(tmp_path, model=plain, ema=averages))
    assert tokenizer.project_in.bias.tolist() == [bias] * 8


def test_names_and_sizes_of_an_export_are_those_of_vq_16(list_llamagen):
    expected = list_llamagen(
        widths=[128, 128, 128, 256, 256, 512], num_blocks=2, latents=256, dim=8, codes=16_384
    )
    counts = {
        side: sum(prod(shape) for name, shape in expected.items() if name.startswith(f"{side}."))
        for side in ("encoder", "decoder")
    }
    assert len(expected) == 344
    assert counts == {"encoder": 29_298_176, "decoder": 42_449_795}
    config = compose("train", read_command_line(["experiment=llamagen_vq16"]))
    parts = {part: split_kind(dict(config[part])) for part in ("encoder", "codebook", "decoder")}
    parts["encoder"]["arguments"]["in_channels"] = parts["decoder"]["arguments"]["out_channels"] = 3
    with torch.device("meta"):
        tokenizer = Tokenizer(**parts, channels=3)
        written = to_theirs(tokenizer, levels=len(checked_network(tokenizer)["multipliers"]))
    assert {name: tuple(item.shape) for name, item in written.items()} == expected


VQ = {**PLAIN, "size": 24, "dim": 8, "codebook_weight": 1.0, "commitment_weight": 0.25}
VQ |= {"gradient": "straight_through", "l2_normalize": True}
NETWORK = {"channels": 128, "multipliers": [1, 1], "num_blocks": 2, "attention_factors": [2]}
NETWORK |= {"latent_channels": 16, "side": 16}


@torch.no_grad()
def test_an_exported_tokenizer_is_the_same_in_its_code(cnn_tokenizer, images, tmp_path):
    tokenizer = cnn_tokenizer("vq", VQ, **NETWORK)
    agreement = LlamaGen().export(tokenizer, tmp_path, images=[images])
    assert (agreement.ids, agreement.other_ids) == (2 * 16 * 24, 0)
    weights = torch.load(tmp_path / "vq_ds2.pt")["model"]
    table = F.normalize(weights["quantize.embedding.weight"], dim=1)
    z = F.normalize(encode(weights, images), dim=1)
    ids = torch.einsum("bdhw,nd->bnhw", z, table).argmax(dim=1)
    assert torch.equal(tokenizer.encode(images), ids)
    assert len(ids.unique()) > 8
    pixels = decode(weights, table[ids].movedim(-1, 1)).clamp(-1, 1)
    torch.testing.assert_close(tokenizer.decode(ids), pixels, atol=1e-4, rtol=0)
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "codebook_size": 24,
        "codebook_embed_dim": 8,
        "encoder_ch_mult": [1, 1],
        "decoder_ch_mult": [1, 1],
        "z_channels": 16,
    }
    again = LlamaGen().convert(tmp_path).state_dict()
    mine = tokenizer.state_dict()
    for name in (name for name in mine if not name.startswith("codebook.")):
        assert torch.equal(again[name], mine[name]), name


@pytest.mark.parametrize(
    ("codebook", "levels", "said"),
    [
        ({"l2_normalize": False}, {}, "codebook.l2_normalize must be true$"),
        ({}, {"attention_factors": [1, 2]}, r"must be \[2\], got \[1, 2\]$"),
        ({}, {"channels": 64}, "has networks of channels=128, not 64$"),
        ({}, {"latent_convolution": True}, "latent_convolution must be false"),
    ],
)
def test_what_its_code_cannot_have_is_refused(cnn_tokenizer, tmp_path, codebook, levels, said):
    tokenizer = cnn_tokenizer("vq", VQ | codebook, **NETWORK | levels)
    with pytest.raises(ConfigError, match=f"^LlamaGen's VQModel .*{said}"):
        LlamaGen().export(tokenizer, tmp_path, images=[])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [[], ["a.pt", "b.pt"]], ids=["none", "two"])
def test_a_folder_has_one_file(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=rf"holds {len(names)} files that end in \.pt, not"):
        LlamaGen().convert(tmp_path)
