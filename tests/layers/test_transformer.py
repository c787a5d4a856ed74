"""Transformer blocks beside timm's and torch's, on the same weights."""

import math

import pytest
import timm.models.vision_transformer
import torch
from torch import Tensor, nn

from vqtrain.errors import ConfigError
from vqtrain.layers.transformer import (
    CrossBlock,
    GridTransformer,
    QueryTransformer,
    TransformerBlock,
)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_a_block_equals_timms(qkv_bias: bool) -> None:
    torch.manual_seed(0)
    block = TransformerBlock(dim=12, num_heads=3, head_dim=4, mlp_dim=20, qkv_bias=qkv_bias)
    theirs = timm.models.vision_transformer.Block(
        12,
        3,
        mlp_ratio=20 / 12,
        qkv_bias=qkv_bias,
        norm_layer=nn.LayerNorm,
    )
    theirs.load_state_dict(block.state_dict())
    x = torch.randn(2, 7, 12, dtype=torch.float64, requires_grad=True)
    ours, want = block.double()(x), theirs.double()(x)
    torch.testing.assert_close(ours, want, rtol=0, atol=1e-9)
    gradients = (torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, want))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_a_cross_block_equals_torchs_attention_once_its_gate_is_open() -> None:
    torch.manual_seed(0)
    block = CrossBlock(dim=8, num_heads=2).double()
    latents, tokens = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    assert torch.equal(block(latents, tokens), block.block(latents))  # closed at first
    nn.init.constant_(block.gate, 0.3)
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([block.q.weight, block.kv.weight]),
            "in_proj_bias": torch.cat([block.q.bias, block.kv.bias]),
            "out_proj.weight": block.proj.weight,
            "out_proj.bias": block.proj.bias,
        }
    )
    media = block.norm_tokens(tokens)
    gathered, _ = theirs(block.norm_latents(latents), media, media)
    want = block.block(latents + math.tanh(0.3) * gathered)
    torch.testing.assert_close(block(latents, tokens), want, rtol=0, atol=1e-9)


def sequence(kind: str) -> QueryTransformer:
    torch.manual_seed(0)
    module = QueryTransformer(dim=8, depth=2, num_heads=2, attention=kind).double()
    for name, parameter in module.named_parameters():
        if name.endswith("gate"):
            nn.init.constant_(parameter, 0.3)
    return module


def test_queries_and_tokens_are_one_sequence() -> None:
    module = sequence("self")
    queries, tokens = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    x = module.pre_norm(torch.cat([tokens, queries], dim=1))  # their order makes no difference
    for block in module.blocks:
        x = block(x)
    torch.testing.assert_close(module(queries, tokens), module.norm(x)[:, 5:])


def test_queries_attend_to_tokens_that_stay_as_they_are() -> None:
    module = sequence("cross")
    queries, tokens = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    x, media = module.pre_norm(queries), module.pre_norm(tokens)
    for block in module.blocks:
        x = block(x, media)
    torch.testing.assert_close(module(queries, tokens), module.norm(x))


def grid_transformer(**changes: object) -> GridTransformer:
    torch.manual_seed(0)
    sizes = {
        "grid": (2, 3),
        "dim": 8,
        "depth": 2,
        "num_heads": 2,
        "head_dim": None,
        "mlp_dim": None,
        "activation": "tanh",
        "qkv_bias": False,
        "pre_norm": True,
        "positions": "sincos_2d",
    }
    return GridTransformer(**{**sizes, **changes}).double()  # type: ignore[arg-type]  # as above


def written_out(module: GridTransformer, x: Tensor) -> Tensor:
    """The same, with attention by its formula."""
    tokens = x.flatten(2).transpose(1, 2)
    added = module.positions.added(x.shape[2:])
    tokens = module.pre_norm(tokens + added if added is not None else tokens)
    for block in module.blocks:
        q, k, v = block.attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)
        heads = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            weights = (q[..., part] @ k[..., part].transpose(1, 2) / 2).softmax(-1)
            heads.append(weights @ v[..., part])
        tokens = tokens + block.attn.proj(torch.cat(heads, dim=-1))
        hidden = block.mlp.fc1(block.norm2(tokens)).tanh()
        tokens = tokens + block.mlp.fc2(hidden)
    return module.norm(tokens).transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize("positions", ["learned", "sincos_2d"])
def test_a_stack_equals_its_formulas(positions: str) -> None:
    module = grid_transformer(positions=positions)
    x = torch.randn(2, 8, 2, 3).double()
    torch.testing.assert_close(module(x), written_out(module, x), rtol=0, atol=1e-9)


def test_only_differences_of_places_count_with_rotations() -> None:
    # With the same content everywhere, a token sees the same whatever its place is.
    module = grid_transformer(positions="rope_2d")
    x = torch.randn(1, 8, 1, 1).double().expand(1, 8, 2, 3)
    found = module(x)
    torch.testing.assert_close(found, found[..., :1, :1].expand_as(found))
    other = torch.randn(1, 8, 2, 3).double()
    assert not torch.allclose(module(other).flip(3), module(other.flip(3)))


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_heads must divide dim 8, got 3"):
        grid_transformer(num_heads=3)
