"""BSQ-ViT, beside a forward pass written from its description."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.errors import CheckpointError
from vqtrain.formats.bsqvit import BSQViT

Weights = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
Draw = Callable[[Shapes], Weights]

DIM, HEAD_DIM, DEPTH, PATCH, BITS = 16, 4, 2, 8, 6
VALUES = 3 * PATCH**2


def published(draw: Draw) -> Weights:
    shapes: Shapes = {
        "encoder.conv1.weight": (DIM, VALUES),
        "quant_embed.weight": (BITS, DIM),
        "quant_embed.bias": (BITS,),
        "post_quant_embed.weight": (DIM, BITS),
        "post_quant_embed.bias": (DIM,),
        "decoder.ffn.0.weight": (4 * DIM, DIM),
        "decoder.ffn.0.bias": (4 * DIM,),
        "decoder.conv_out.weight": (VALUES, 4 * DIM),
        "decoder.conv_out.bias": (VALUES,),
        "quantize.basis": (BITS,),
        "quantize.group_basis": (2,),
    }
    for side in ("encoder", "decoder"):
        shapes[f"{side}.positional_embedding"] = (16, DIM)
        norms = [f"{side}.ln_pre", f"{side}.ln_post"]
        for index in range(DEPTH):
            block = f"{side}.transformer.resblocks.{index}"
            norms += [f"{block}.ln_1", f"{block}.ln_2"]
            shapes |= {
                f"{block}.attn.in_proj_weight": (3 * DIM, DIM),
                f"{block}.attn.in_proj_bias": (3 * DIM,),
                f"{block}.attn.out_proj.weight": (DIM, DIM),
                f"{block}.attn.out_proj.bias": (DIM,),
                f"{block}.mlp.c_fc.weight": (4 * DIM, DIM),
                f"{block}.mlp.c_fc.bias": (4 * DIM,),
                f"{block}.mlp.c_proj.weight": (DIM, 4 * DIM),
                f"{block}.mlp.c_proj.bias": (DIM,),
            }
        shapes |= {f"{name}.{part}": (DIM,) for name in norms for part in ("weight", "bias")}
    return draw(shapes)


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def transformer(w: Weights, side: str, x: Tensor, clip_block: Callable[..., Tensor]) -> Tensor:
    x = x + w[f"{side}.positional_embedding"]
    x = F.layer_norm(x, (DIM,), w[f"{side}.ln_pre.weight"], w[f"{side}.ln_pre.bias"])
    for index in range(DEPTH):
        x = clip_block(w, f"{side}.transformer.resblocks.{index}", x, DIM // HEAD_DIM)
    return F.layer_norm(x, (DIM,), w[f"{side}.ln_post.weight"], w[f"{side}.ln_post.bias"])


def save(tmp_path: Path, **sections: Weights) -> Path:
    torch.save({**sections, "epoch": 3}, tmp_path / "bsqvit.pt")
    return tmp_path / "bsqvit.pt"


def under(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{name}": item for name, item in weights.items()}


def test_ids_and_pixels_follow_the_description(
    draw: Draw, clip_block: Callable[..., Tensor], images: Tensor, tmp_path: Path
) -> None:
    square, weights = images[..., :32], published(draw)
    w = {name: item.double() for name, item in weights.items()}
    # Values of a patch: channel, row, column; patches row by row.
    patches = F.unfold(square.double(), PATCH, stride=PATCH).transpose(1, 2)
    tokens = transformer(w, "encoder", linear(w, "encoder.conv1", patches), clip_block)
    z = F.normalize(linear(w, "quant_embed", tokens), dim=-1)
    bits = (z > 0).long()
    ids = sum(bits[..., i] << (BITS - 1 - i) for i in range(BITS))
    z_q = (bits * 2 - 1).double() / BITS**0.5
    tokens = transformer(w, "decoder", linear(w, "post_quant_embed", z_q), clip_block)
    pixels = linear(w, "decoder.conv_out", linear(w, "decoder.ffn.0", tokens).tanh())
    expected = F.fold(pixels.transpose(1, 2), 32, PATCH, stride=PATCH).float()

    averages = under("module.module.", weights)
    others = under("module.", published(draw) | {"quant_embed.bias": torch.ones(BITS)})
    file = save(tmp_path, state_dict=others, ema_state_dict={**averages, "n": torch.tensor(3)})
    tokenizer = BSQViT(head_dim=HEAD_DIM).convert(file)
    assert torch.equal(tokenizer.encode(square), ids.unflatten(1, (4, 4)))
    assert len(ids.unique()) > 4
    with torch.no_grad():
        samples = tokenizer(square).samples
    torch.testing.assert_close(samples, expected, atol=1e-5, rtol=1e-5)
    assert tokenizer.codebook.group_bits == 2
    plain = BSQViT(ema=False, head_dim=HEAD_DIM).convert(file)
    assert plain.project_in.bias.tolist() == [1.0] * BITS


@pytest.mark.parametrize(
    "key",
    [
        "encoder.conv1.weight",
        "encoder.positional_embedding",
        "encoder.transformer.resblocks.1.attn.in_proj_bias",
        "decoder.transformer.resblocks.0.mlp.c_proj.weight",
        "decoder.ln_pre.weight",
        "decoder.conv_out.bias",
        "quant_embed.bias",
        "post_quant_embed.weight",
    ],
)
def test_a_wrong_key_is_named(
    draw: Draw, refusals: Callable[..., dict[str, str]], key: str
) -> None:
    said = refusals(BSQViT(head_dim=HEAD_DIM), published(draw), key)
    assert said["missing"].endswith(f"{key} is missing")
    assert said["renamed"].endswith(f"{key} is missing, {key}_ is unknown")
    assert f"{key} is [" in said["misshaped"]


def test_other_heads_are_refused(draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="head_dim=64 does not divide its attention of 16"):
        BSQViT().convert(save(tmp_path, state_dict=published(draw)))
