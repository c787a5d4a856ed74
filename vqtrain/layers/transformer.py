"""Pre-norm transformers: blocks over tokens, and a stack of them over a grid."""

from collections.abc import Sequence
from typing import Annotated, TypedDict, Unpack, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vqtrain.errors import require
from vqtrain.layers.block import Block
from vqtrain.layers.positions import KINDS, ROTATIONS, Rope, build_table, rotate
from vqtrain.ranges import at_least, one_of

ACTIVATIONS = ("gelu", "tanh")
ATTENTIONS = ("self", "cross")
EPS = 1e-5  # of layer norms


@final
class Attention(nn.Module):
    """Self-attention of several heads.

    Args:
        dim: Channels of the tokens.
        num_heads: Heads.
        head_dim: Channels of each head.
        qkv_bias: Whether queries, keys and values have biases.
    """

    def __init__(self, *, dim: int, num_heads: int, head_dim: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=qkv_bias)
        self.proj = nn.Linear(num_heads * head_dim, dim)

    def forward(
        self,
        x: Float[Tensor, "b n dim"],
        rotation: Float[Tensor, "2 n pairs"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n dim"]:
        """Let each token attend to all, or to those of ``mask``; ``rotation`` turns q and k."""
        q, k, v = rearrange(
            self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        seen = None if mask is None else mask[:, None, None]
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.proj(rearrange(x, "b h n d -> b n (h d)"))


@final
class MLP(nn.Module):
    """Two linear maps with an activation between them.

    Args:
        dim: Channels of the tokens.
        hidden_dim: Channels between the two.
        activation: One of ``ACTIVATIONS``; ``gelu`` is the exact one.
    """

    def __init__(self, *, dim: int, hidden_dim: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = {"gelu": nn.GELU, "tanh": nn.Tanh}[activation]()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "b n dim"]) -> Float[Tensor, "b n dim"]:
        """Apply the three in turn."""
        return self.fc2(self.act(self.fc1(x)))


@final
class TransformerBlock(Block):
    """Attention and an MLP, each after a layer norm and added to its input.

    The parameters are named as in timm.

    Args:
        dim: Channels of the tokens.
        num_heads: Attention heads.
        head_dim: Channels of each head.
        mlp_dim: Channels inside the MLP.
        activation: Of the MLP, one of ``ACTIVATIONS``.
        qkv_bias: Whether queries, keys and values have biases.

    References:
        Dosovitskiy et al. 2020, arXiv:2010.11929.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        head_dim: int,
        mlp_dim: int,
        activation: str = "gelu",
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = Attention(dim=dim, num_heads=num_heads, head_dim=head_dim, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = MLP(dim=dim, hidden_dim=mlp_dim, activation=activation)

    def forward(
        self,
        x: Float[Tensor, "b n dim"],
        rotation: Float[Tensor, "2 n pairs"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n dim"]:
        """Apply both in turn."""
        x = x + self.attn(self.norm1(x), rotation, mask)
        return x + self.mlp(self.norm2(x))


@final
class CrossBlock(Block):
    """Attention of latents to tokens, through a gate that is closed at first, then a block.

    Args:
        dim: Channels of the latents and the tokens.
        num_heads: Attention heads.

    References:
        Alayrac et al. 2022, arXiv:2204.14198 (Flamingo): x + tanh(gate) attention, from gate 0.
    """

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_latents, self.norm_tokens = nn.LayerNorm(dim, eps=EPS), nn.LayerNorm(dim, eps=EPS)
        self.q, self.kv, self.proj = (
            nn.Linear(dim, dim),
            nn.Linear(dim, 2 * dim),
            nn.Linear(dim, dim),
        )
        self.gate = nn.Parameter(torch.zeros(()))
        self.block = TransformerBlock(
            dim=dim, num_heads=num_heads, head_dim=whole_heads(dim, num_heads), mlp_dim=4 * dim
        )

    def forward(
        self, latents: Float[Tensor, "b n dim"], tokens: Float[Tensor, "b m dim"]
    ) -> Float[Tensor, "b n dim"]:
        """Let each latent attend to all tokens, then to all latents."""
        q = rearrange(self.q(self.norm_latents(latents)), "b n (h d) -> b h n d", h=self.num_heads)
        k, v = rearrange(
            self.kv(self.norm_tokens(tokens)),
            "b m (two h d) -> two b h m d",
            two=2,
            h=self.num_heads,
        )
        gathered = rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")
        return self.block(latents + self.gate.tanh() * self.proj(gathered))


@final
class QueryTransformer(nn.Module):
    """Carries information from tokens to queries.

    Args:
        dim: Channels of tokens and queries.
        depth: Blocks.
        num_heads: Attention heads.
        attention: ``self``: tokens and queries are one sequence, as in TiTok; ``cross``: queries
            attend to the tokens, which stay as they are, as in the Perceiver resampler.

    Raises:
        ConfigError: If the heads do not divide ``dim``.
    """

    def __init__(self, *, dim: int, depth: int, num_heads: int, attention: str) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(dim, eps=EPS)
        head_dim = whole_heads(dim, num_heads)
        self.blocks = nn.ModuleList(
            CrossBlock(dim=dim, num_heads=num_heads)
            if attention == "cross"
            else TransformerBlock(dim=dim, num_heads=num_heads, head_dim=head_dim, mlp_dim=4 * dim)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=EPS)
        initialize(self)

    def forward(
        self, queries: Float[Tensor, "b n dim"], tokens: Float[Tensor, "b m dim"]
    ) -> Float[Tensor, "b n dim"]:
        """Return what the queries have become."""
        n = queries.shape[1]
        x = self.pre_norm(torch.cat([queries, tokens], dim=1))
        queries, tokens = x[:, :n], x[:, n:]
        for block in self.blocks:
            if isinstance(block, CrossBlock):
                queries = block(queries, tokens)
            else:
                x = block(x)
                queries = x[:, :n]
        return self.norm(queries)


class Blocks(TypedDict):
    """Sizes and choices of a ``GridTransformer``.

    Attributes:
        dim: Channels of the tokens, at least 1.
        depth: Blocks, at least 1.
        num_heads: Attention heads, at least 1.
        head_dim: Channels of each head; None for ``dim`` / ``num_heads``.
        mlp_dim: Channels inside the MLPs; None for 4 ``dim``.
        activation: Inside the MLPs, ``gelu`` or ``tanh``.
        qkv_bias: Whether queries, keys and values have biases.
        pre_norm: Whether a layer norm comes before the first block too.
        positions: Position codes: ``learned``; for images ``learned_2d``, ``sincos_2d`` or
            ``rope_2d``; for clips ``sincos_3d`` or ``rope_3d``.
    """

    dim: Annotated[int, at_least(1)]
    depth: Annotated[int, at_least(1)]
    num_heads: Annotated[int, at_least(1)]
    head_dim: Annotated[int, at_least(1)] | None
    mlp_dim: Annotated[int, at_least(1)] | None
    activation: Annotated[str, one_of(*ACTIVATIONS)]
    qkv_bias: bool
    pre_norm: bool
    positions: Annotated[str, one_of(*KINDS)]


@final
class GridTransformer(nn.Module):
    """A transformer over all tokens of a grid of rows and columns, and of frames before them.

    Args:
        grid: The grid of training; positions are interpolated to others.
        **sizes: See ``Blocks``.

    Raises:
        ConfigError: If the heads do not divide ``dim``, or ``positions`` do not fit the channels.
    """

    def __init__(self, *, grid: Sequence[int], **sizes: Unpack[Blocks]) -> None:
        super().__init__()
        dim, num_heads, positions = sizes["dim"], sizes["num_heads"], sizes["positions"]
        head_dim = sizes["head_dim"] or whole_heads(dim, num_heads)
        self.positions = (
            Rope(positions, grid, head_dim)
            if positions in ROTATIONS
            else build_table(positions, grid=grid, dim=dim)
        )
        self.pre_norm = nn.LayerNorm(dim, eps=EPS) if sizes["pre_norm"] else nn.Identity()
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim=dim,
                num_heads=num_heads,
                head_dim=head_dim,
                mlp_dim=sizes["mlp_dim"] or 4 * dim,
                activation=sizes["activation"],
                qkv_bias=sizes["qkv_bias"],
            )
            for _ in range(sizes["depth"])
        )
        self.norm = nn.LayerNorm(dim, eps=EPS)
        initialize(self, std=0.02)

    def forward(self, x: Float[Tensor, "b dim *grid"]) -> Float[Tensor, "b dim *grid"]:
        """Let every token of the grid see every other."""
        grid = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        added = self.positions.added(grid)
        if added is not None:
            tokens = tokens + added.to(tokens.dtype)
        tokens = self.pre_norm(tokens)
        rotation = self.positions.rotation(grid)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        return self.norm(tokens).transpose(1, 2).unflatten(2, grid)


def whole_heads(dim: int, num_heads: int) -> int:
    """Divide the channels among the heads.

    Raises:
        ConfigError: If they cannot be divided.
    """
    require(dim % num_heads == 0, f"num_heads must divide dim {dim}, got {num_heads}")
    return dim // num_heads


def initialize(module: nn.Module, *, std: float | None = None) -> None:
    """Draw the weights of linear maps from a normal distribution.

    Args:
        module: Whose linear maps these are.
        std: Its standard deviation; None for what keeps the size of the inputs at any width, which
            attention needs where all information goes through it, as between queries and tokens.
    """
    for each in module.modules():
        if isinstance(each, nn.Linear):
            nn.init.trunc_normal_(each.weight, std=std or each.in_features**-0.5)
            if each.bias is not None:
                nn.init.zeros_(each.bias)
