"""LlamaGen, beside a forward pass written from its description."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.formats.llamagen import LlamaGen

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


def encode(weights: Weights, images: Tensor) -> Tensor:
    h = block(weights, "encoder.conv_blocks.0.res.0", conv(weights, "encoder.conv_in", images))
    down = "encoder.conv_blocks.0.downsample.conv"
    h = conv(weights, down, F.pad(h, (0, 1, 0, 1)), stride=2, padding=0)
    h = block(weights, "encoder.conv_blocks.1.res.0", h)
    h = middle(weights, "encoder", attention(weights, "encoder.conv_blocks.1.attn.0", h))
    h = conv(weights, "encoder.conv_out", F.silu(norm(weights, "encoder.norm_out", h)))
    return conv(weights, "quant_conv", h)


def decode(weights: Weights, z_q: Tensor) -> Tensor:
    h = conv(weights, "decoder.conv_in", conv(weights, "post_quant_conv", z_q))
    h = middle(weights, "decoder", h)
    for index in range(2):
        h = block(weights, f"decoder.conv_blocks.0.res.{index}", h)
        h = attention(weights, f"decoder.conv_blocks.0.attn.{index}", h)
    h = F.interpolate(h, scale_factor=2.0, mode="nearest")
    h = conv(weights, "decoder.conv_blocks.0.upsample.conv", h)
    for index in range(2):
        h = block(weights, f"decoder.conv_blocks.1.res.{index}", h)
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
