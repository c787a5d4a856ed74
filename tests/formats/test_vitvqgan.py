"""The ViT-VQGAN of enhancing-transformers, beside a forward pass written from its description."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.errors import CheckpointError
from vqtrain.formats.vitvqgan import ViTVQGAN

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Draw = Callable[[Shapes], Weights]

DIM, HEAD_DIM, CODES, CODE_DIM = 16, 4, 24, 6
# Blocks, heads and channels inside the MLPs; the heads of the published large decoder exceed dim.
SIDES = {"encoder": (2, 4, 24), "decoder": (1, 6, 20)}


def sines(side: int) -> Tensor:
    """Its table [1, n, dim]: sines, then cosines, of the column, then of the row."""
    frequencies = 10_000.0 ** (-torch.arange(DIM // 4).double() / (DIM // 4))
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    waves = [places.flatten()[:, None] * frequencies for places in (columns, rows)]
    return torch.cat([part for wave in waves for part in (wave.sin(), wave.cos())], dim=1)[None]


def published(draw: Draw) -> Weights:
    shapes: Shapes = {
        "encoder.to_patch_embedding.0.weight": (DIM, 3, 8, 8),
        "encoder.to_patch_embedding.0.bias": (DIM,),
        "decoder.to_pixel.1.weight": (DIM, 3, 8, 8),
        "decoder.to_pixel.1.bias": (3,),
        "pre_quant.weight": (CODE_DIM, DIM),
        "pre_quant.bias": (CODE_DIM,),
        "post_quant.weight": (DIM, CODE_DIM),
        "post_quant.bias": (DIM,),
        "quantizer.embedding.weight": (CODES, CODE_DIM),
        "loss.discriminator.weight": (2, 2),
    }
    for side, (depth, heads, mlp_dim) in SIDES.items():
        norms = [f"{side}.transformer.norm"]
        for index in range(depth):
            layer, inner = f"{side}.transformer.layers.{index}", heads * HEAD_DIM
            norms += [f"{layer}.0.norm", f"{layer}.1.norm"]
            shapes |= {
                f"{layer}.0.fn.to_qkv.weight": (3 * inner, DIM),
                f"{layer}.0.fn.to_out.weight": (DIM, inner),
                f"{layer}.0.fn.to_out.bias": (DIM,),
                f"{layer}.1.fn.net.0.weight": (mlp_dim, DIM),
                f"{layer}.1.fn.net.0.bias": (mlp_dim,),
                f"{layer}.1.fn.net.2.weight": (DIM, mlp_dim),
                f"{layer}.1.fn.net.2.bias": (DIM,),
            }
        shapes |= {f"{name}.{part}": (DIM,) for name in norms for part in ("weight", "bias")}
    positions = {"encoder.en_pos_embedding": sines(4), "decoder.de_pos_embedding": sines(4)}
    return draw(shapes) | {name: table.float() for name, table in positions.items()}


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, (DIM,), w[f"{name}.weight"], w[f"{name}.bias"])


def transformer(w: Weights, side: str, x: Tensor) -> Tensor:
    for index in range(SIDES[side][0]):
        name = f"{side}.transformer.layers.{index}"
        qkv = linear(w, f"{name}.0.fn.to_qkv", norm(w, f"{name}.0.norm", x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for part in qkv)
        shares = (q @ k.transpose(-1, -2) * HEAD_DIM**-0.5).softmax(-1)
        x = x + linear(w, f"{name}.0.fn.to_out", (shares @ v).transpose(1, 2).flatten(2))
        hidden = linear(w, f"{name}.1.fn.net.0", norm(w, f"{name}.1.norm", x)).tanh()
        x = x + linear(w, f"{name}.1.fn.net.2", hidden)
    return norm(w, f"{side}.transformer.norm", x)


def encode(w: Weights, pixels: Tensor) -> Tensor:
    """Unit vectors [b, n, d] of pixels in [0, 1]."""
    name = "encoder.to_patch_embedding.0"
    patches = F.conv2d(pixels, w[f"{name}.weight"], w[f"{name}.bias"], stride=8)
    tokens = patches.flatten(2).transpose(1, 2) + w["encoder.en_pos_embedding"]
    return F.normalize(linear(w, "pre_quant", transformer(w, "encoder", tokens)), dim=-1)


def decode(w: Weights, z_q: Tensor) -> Tensor:
    """Pixels in [0, 1] of unit vectors."""
    tokens = linear(w, "post_quant", z_q) + w["decoder.de_pos_embedding"]
    grid = transformer(w, "decoder", tokens).transpose(1, 2).unflatten(2, (4, 4))
    name = "decoder.to_pixel.1"
    return F.conv_transpose2d(grid, w[f"{name}.weight"], w[f"{name}.bias"], stride=8)


def save(weights: Weights, tmp_path: Path) -> Path:
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "vitvqgan.ckpt")
    return tmp_path / "vitvqgan.ckpt"


def test_ids_and_pixels_follow_the_description(draw: Draw, images: Tensor, tmp_path: Path) -> None:
    square, weights = images[..., :32], published(draw)
    w = {name: item.double() for name, item in weights.items()}
    z = encode(w, (square.double() + 1) / 2)
    weights["quantizer.embedding.weight"] = 3 * z.flatten(0, 1)[:CODES].float()
    table = F.normalize(weights["quantizer.embedding.weight"].double(), dim=-1)
    ids = (z @ table.T).argmax(-1)
    tokenizer = ViTVQGAN(head_dim=HEAD_DIM).convert(save(weights, tmp_path))
    assert torch.equal(tokenizer.encode(square), ids.unflatten(1, (4, 4)))
    assert len(ids.unique()) > 4
    with torch.no_grad():
        reconstruction = tokenizer(square)
    expected = (2 * decode(w, table[ids]) - 1).float()
    torch.testing.assert_close(reconstruction.samples, expected, atol=1e-5, rtol=1e-5)
    loss = 1.25 * F.mse_loss(table[ids], z).float()
    torch.testing.assert_close(reconstruction.quantized.loss, loss)


@pytest.mark.parametrize(
    "key",
    [
        "encoder.to_patch_embedding.0.weight",
        "encoder.en_pos_embedding",
        "encoder.transformer.layers.1.0.fn.to_qkv.weight",
        "decoder.transformer.layers.0.1.fn.net.2.bias",
        "decoder.transformer.norm.weight",
        "decoder.to_pixel.1.weight",
        "pre_quant.weight",
        "quantizer.embedding.weight",
    ],
)
def test_a_wrong_key_is_named(
    draw: Draw, refusals: Callable[..., dict[str, str]], key: str
) -> None:
    said = refusals(ViTVQGAN(head_dim=HEAD_DIM), published(draw), key)
    assert said["missing"].endswith(f"{key} is missing")
    assert said["renamed"].endswith(f"{key} is missing, {key}_ is unknown")
    assert f"{key} is [" in said["misshaped"]


def test_what_cannot_be_is_refused(draw: Draw, tmp_path: Path) -> None:
    weights = published(draw)
    with pytest.raises(CheckpointError, match="head_dim=64 does not divide its attention of 16"):
        ViTVQGAN().convert(save(weights, tmp_path))
    for name in ("encoder.en_pos_embedding", "decoder.de_pos_embedding"):
        weights[name] = weights[name][:, 1:]
    with pytest.raises(CheckpointError, match="en_pos_embedding has 15 rows, which make no square"):
        ViTVQGAN().convert(save(weights, tmp_path))
