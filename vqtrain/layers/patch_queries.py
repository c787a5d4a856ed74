"""From a sequence of latents to the patches of an image."""

from collections.abc import Sequence
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.positions import build_table
from vqtrain.layers.transformer import QueryTransformer


@final
class PatchQueries(nn.Module):
    """A query for each patch gathers from latents.

    Args:
        grid: Rows and columns of patches.
        num_tokens: Latents.
        dim: Channels of tokens and latents.
        depth: Blocks.
        num_heads: Attention heads.
        attention: One of ``transformer.ATTENTIONS``.
        positions: Codes of the patches, one of ``positions.TABLES``.
    """

    def __init__(
        self,
        *,
        grid: Sequence[int],
        num_tokens: int,
        dim: int,
        depth: int,
        num_heads: int,
        attention: str,
        positions: str,
    ) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.latent_positions = nn.Parameter(torch.randn(num_tokens, dim) * dim**-0.5)
        self.positions = build_table(positions, grid=grid, dim=dim)
        self.class_token = nn.Parameter(torch.randn(1, dim) * dim**-0.5)
        self.mask_token = nn.Parameter(torch.randn(1, dim) * dim**-0.5)
        self.transformer = QueryTransformer(
            dim=dim, depth=depth, num_heads=num_heads, attention=attention
        )

    def forward(self, latents: Float[Tensor, "b n dim"]) -> Float[Tensor, "b dim rows columns"]:
        """Return what the queries have become."""
        queries = self.mask_token + self.positions.added(self.grid).to(latents.dtype)
        queries = torch.cat([self.class_token, queries]).expand(len(latents), -1, -1)
        tokens = self.transformer(queries, latents + self.latent_positions)[:, 1:]
        return rearrange(tokens, "b (rows columns) d -> b d rows columns", rows=self.grid[0])
