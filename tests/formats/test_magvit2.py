"""Open-MAGVIT2, beside a forward pass written from its description."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.formats.magvit2 import MAGVIT2

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Draw = Callable[[Shapes], Weights]

BITS = 6


def published(draw: Draw) -> Weights:
    """Draw two levels of 32 and 64 channels, with one block each."""
    shapes: Shapes = {
        "encoder.conv_in.weight": (32, 3, 3, 3),
        "encoder.down.0.downsample.weight": (32, 32, 3, 3),
        "encoder.down.0.downsample.bias": (32,),
        "encoder.conv_out.weight": (BITS, 64, 1, 1),
        "encoder.conv_out.bias": (BITS,),
        "decoder.conv_in.weight": (64, BITS, 3, 3),
        "decoder.conv_in.bias": (64,),
        "decoder.up.1.upsample.conv1.weight": (4 * 64, 64, 3, 3),
        "decoder.up.1.upsample.conv1.bias": (4 * 64,),
        "decoder.conv_out.weight": (3, 32, 3, 3),
        "decoder.conv_out.bias": (3,),
    }
    norms = {"encoder.norm_out": 64, "decoder.norm_out": 32}
    for block, (of, to) in {
        "encoder.down.0.block.0": (32, 32),
        "encoder.down.1.block.0": (32, 64),
        "encoder.mid_block.0": (64, 64),
        "decoder.mid_block.0": (64, 64),
        "decoder.up.1.block.0": (64, 64),
        "decoder.up.0.block.0": (64, 32),
    }.items():
        norms |= {f"{block}.norm1": of, f"{block}.norm2": to}
        shapes |= {f"{block}.conv1.weight": (to, of, 3, 3), f"{block}.conv2.weight": (to, to, 3, 3)}
        if of != to:
            shapes[f"{block}.nin_shortcut.weight"] = (to, of, 1, 1)
    for level in range(2):
        for part in ("gamma", "beta"):
            name = f"decoder.adaptive.{level}.{part}"
            shapes |= {f"{name}.weight": (64, BITS), f"{name}.bias": (64,)}
    for name, channels in norms.items():
        shapes |= {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}
    return draw(shapes)


def encode(model: Any, images: Tensor) -> Tensor:
    h = model.block("encoder.down.0.block.0", model.conv("encoder.conv_in", images))
    h = model.conv("encoder.down.0.downsample", h, stride=2)
    h = model.block("encoder.mid_block.0", model.block("encoder.down.1.block.0", h))
    return model.conv("encoder.conv_out", F.silu(model.norm("encoder.norm_out", h)))


def adapted(w: Weights, level: int, h: Tensor, z_q: Tensor) -> Tensor:
    name, flat = f"decoder.adaptive.{level}", z_q.flatten(2)
    deviation = (flat.var(dim=2, unbiased=True) + 1e-6).sqrt()
    scale = F.linear(deviation, w[f"{name}.gamma.weight"], w[f"{name}.gamma.bias"])
    shift = F.linear(flat.mean(2), w[f"{name}.beta.weight"], w[f"{name}.beta.bias"])
    return scale[..., None, None] * F.group_norm(h, 32, eps=1e-6) + shift[..., None, None]


def decode(model: Any, z_q: Tensor) -> Tensor:
    h = model.block("decoder.mid_block.0", model.conv("decoder.conv_in", z_q))
    h = model.block("decoder.up.1.block.0", adapted(model.weights, 1, h, z_q))
    h = model.conv("decoder.up.1.upsample.conv1", h)
    b, _, rows, columns = h.shape
    # Channel (2 r + c) 64 + k is channel k of the pixel in row r, column c of a block.
    h = h.view(b, 2, 2, 64, rows, columns).permute(0, 3, 4, 1, 5, 2)
    h = h.reshape(b, 64, 2 * rows, 2 * columns)
    h = model.block("decoder.up.0.block.0", adapted(model.weights, 0, h, z_q))
    return model.conv("decoder.conv_out", F.silu(model.norm("decoder.norm_out", h)))


def save(weights: Weights, tmp_path: Path) -> Path:
    torch.save({"state_dict": weights, "epoch": 3}, tmp_path / "magvit2.ckpt")
    return tmp_path / "magvit2.ckpt"


def test_ids_and_pixels_follow_the_description(
    draw: Draw, published_cnn: Callable[..., Any], images: Tensor, tmp_path: Path
) -> None:
    weights = published(draw)
    model = published_cnn({name: item.double() for name, item in weights.items()})
    z = encode(model, images.double())
    bits = (z > 0).long()
    ids = sum(bits[:, channel] << channel for channel in range(BITS))
    z_q = bits.double() * 2 - 1
    # Its file holds other weights than those of its evaluation, and what trained it.
    averages = {f"model_ema.{name.replace('.', '')}": item for name, item in weights.items()}
    raw = {name: item + 1 for name, item in weights.items()} | {"loss.logvar": torch.ones(1)}
    counters = {"model_ema.decay": torch.tensor(0.999), "model_ema.losslogvar": torch.ones(1)}
    file = save({**raw, **averages, **counters}, tmp_path)
    tokenizer = MAGVIT2().convert(file)
    assert torch.equal(tokenizer.encode(images), ids)
    assert len(ids.unique()) > 4
    with torch.no_grad():
        reconstruction = tokenizer(images)
    torch.testing.assert_close(
        reconstruction.samples, decode(model, z_q).float(), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(reconstruction.quantized.loss, 0.25 * F.mse_loss(z, z_q).float())
    plain = MAGVIT2(ema=False).convert(file)
    assert torch.equal(plain.encoder.layers.conv_out.bias, raw["encoder.conv_out.bias"])


@pytest.mark.parametrize(
    "key",
    [
        "encoder.conv_in.weight",
        "encoder.down.0.downsample.bias",
        "encoder.down.1.block.0.nin_shortcut.weight",
        "encoder.mid_block.0.conv2.weight",
        "decoder.up.1.upsample.conv1.weight",
        "decoder.adaptive.1.gamma.weight",
        "decoder.conv_out.bias",
    ],
)
def test_a_wrong_key_is_named(
    draw: Draw, refusals: Callable[..., dict[str, str]], key: str
) -> None:
    said = refusals(MAGVIT2(), published(draw), key)
    assert said["missing"].endswith(f"{key} is missing")
    assert said["renamed"].endswith(f"{key} is missing, {key}_ is unknown")
    assert f"{key} is [" in said["misshaped"]
