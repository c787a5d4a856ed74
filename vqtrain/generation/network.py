"""The transformer that all models over ids share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import final

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.layers.block import Block
from vqtrain.layers.transformer import EPS, MLP

HEAD_DIM = 32
MLP_RATIO = 4
INITIAL_STD = 0.02


@final
class Memory:
    """The keys and values of the positions that one block has seen, for sampling."""

    def __init__(self) -> None:
        self.seen: tuple[Tensor, Tensor] | None = None

    def extended(
        self, keys: Float[Tensor, "b h new d"], values: Float[Tensor, "b h new d"]
    ) -> tuple[Float[Tensor, "b h all d"], Float[Tensor, "b h all d"]]:
        """Add those of new positions, and return all."""
        if self.seen is not None:
            keys = torch.cat([self.seen[0], keys], dim=2)
            values = torch.cat([self.seen[1], values], dim=2)
        self.seen = keys, values
        return self.seen


@final
class NetworkBlock(Block):
    """Attention and an MLP, each after a layer norm and added to its input.

    Args:
        dim: Channels.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.num_heads = dim // HEAD_DIM
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = MLP(dim=dim, hidden_dim=MLP_RATIO * dim, activation="gelu")

    def forward(
        self,
        x: Float[Tensor, "b n dim"],
        visible: Bool[Tensor, "n all"] | None,
        is_causal: bool,
        memory: Memory | None,
    ) -> Float[Tensor, "b n dim"]:
        """Apply both in turn.

        Args:
            x: The positions.
            visible: Which positions each of them sees; None for all.
            is_causal: Whether it sees none after it, instead.
            memory: Positions before these, which these are added to.
        """
        q, k, v = rearrange(
            self.qkv(self.norm1(x)), "b n (three h d) -> three b h n d", three=3, h=self.num_heads
        )
        if memory is not None:
            k, v = memory.extended(k, v)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=is_causal)
        x = x + self.proj(rearrange(seen, "b h n d -> b n (h d)"))
        return x + self.mlp(self.norm2(x))


@final
class Network(nn.Module):
    """A pre-norm transformer over positions in groups: a group sees itself and those before it.

    Args:
        depth: Blocks.
        dim: Channels, a multiple of ``HEAD_DIM``.
        groups: The number of the group of each position, from the first position on, never
            falling: all the same for attention to everything, all different for causal attention.
    """

    def __init__(self, *, depth: int, dim: int, groups: Sequence[int]) -> None:
        super().__init__()
        self.groups = tuple(groups)
        self.is_causal = all(a < b for a, b in pairwise(groups))
        self.group_of: Tensor
        self.register_buffer("group_of", torch.tensor(self.groups), persistent=False)
        self.positions = nn.Parameter(torch.empty(len(groups), dim))
        self.blocks = nn.ModuleList(NetworkBlock(dim=dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        nn.init.normal_(self.positions, std=INITIAL_STD)
        for block in self.blocks:
            for name, linear in block.named_modules():
                if isinstance(linear, nn.Linear):
                    # What is added to the input grows with the blocks, as in GPT-2.
                    is_last = name in ("proj", "mlp.fc2")
                    nn.init.normal_(
                        linear.weight, std=INITIAL_STD * ((2 * depth) ** -0.5 if is_last else 1)
                    )
                    nn.init.zeros_(linear.bias)

    @property
    def flops(self) -> int:
        """Operations of a forward pass over one sample, of the matrix products alone."""
        n, dim = self.positions.shape
        per_position = 2 * (4 + 2 * MLP_RATIO) * dim**2 + 4 * n * dim
        return len(self.blocks) * n * per_position

    def new_memory(self) -> list[Memory]:
        """Return the memory of a sequence of which nothing is known, one part for each block."""
        return [Memory() for _ in self.blocks]

    def forward(
        self, x: Float[Tensor, "b n dim"], memory: Sequence[Memory] | None = None
    ) -> Float[Tensor, "b n dim"]:
        """Return what becomes of the next positions, after a layer norm.

        Args:
            x: The positions from the first one on or, with ``memory``, from those in it on. They
                end with a group, unless all groups are of one position.
            memory: Of the positions before; it is extended.
        """
        seen = memory[0].seen if memory else None
        start = 0 if seen is None else seen[0].shape[2]
        stop = start + x.shape[1]
        x = x + self.positions[start:stop]
        sees_all = self.groups[start] == self.groups[stop - 1]
        is_causal = self.is_causal and start == 0 and not sees_all
        visible = None
        if not sees_all and not is_causal:
            visible = self.group_of[:stop] <= self.group_of[start:stop, None]
        for number, block in enumerate(self.blocks):
            x = block(x, visible, is_causal, memory[number] if memory else None)
        return self.norm(x)
