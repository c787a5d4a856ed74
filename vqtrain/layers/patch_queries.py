"""From a sequence of latents to the patches of an image."""

from collections.abc import Sequence
from typing import Annotated, TypedDict, Unpack, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.positions import SINE_STD, TABLES_2D, build_table
from vqtrain.layers.transformer import ATTENTIONS, QueryTransformer
from vqtrain.ranges import at_least, one_of


class Queries(TypedDict):
    """Sizes and choices that the ways between patches and latents share.

    Attributes:
        num_tokens: Latents of an image, at least 1.
        dim: Channels of tokens and latents.
        depth: Blocks, at least 1.
        num_heads: Attention heads, which divide ``dim``.
        attention: ``self``: queries, and the patches or latents that they gather from, are one
            sequence; ``cross``: queries attend to them through a gate that is closed at first.
        positions: Codes of the patches: ``learned``, ``learned_2d`` or ``sincos_2d``.
    """

    num_tokens: Annotated[int, at_least(1)]
    dim: Annotated[int, at_least(1)]
    depth: Annotated[int, at_least(1)]
    num_heads: Annotated[int, at_least(1)]
    attention: Annotated[str, one_of(*ATTENTIONS)]
    positions: Annotated[str, one_of(*TABLES_2D)]


def build_transformer(queries: Queries) -> QueryTransformer:
    """Build what carries information from patches to latents, or back."""
    return QueryTransformer(
        dim=queries["dim"],
        depth=queries["depth"],
        num_heads=queries["num_heads"],
        attention=queries["attention"],
    )


@final
class PatchQueries(nn.Module):
    """A query for each patch gathers from latents.

    Args:
        grid: Rows and columns of patches.
        **queries: See ``Queries``.
    """

    def __init__(self, *, grid: Sequence[int], **queries: Unpack[Queries]) -> None:
        super().__init__()
        dim, num_tokens = queries["dim"], queries["num_tokens"]
        self.grid = tuple(grid)
        self.latent_positions = nn.Parameter(torch.randn(num_tokens, dim) * SINE_STD)
        self.positions = build_table(queries["positions"], grid=grid, dim=dim, std=SINE_STD)
        self.class_token = nn.Parameter(torch.randn(1, dim) * SINE_STD)
        self.mask_token = nn.Parameter(torch.randn(1, dim) * SINE_STD)
        self.transformer = build_transformer(queries)

    def forward(self, latents: Float[Tensor, "b n dim"]) -> Float[Tensor, "b dim rows columns"]:
        """Return what the queries have become."""
        queries = self.mask_token + self.positions.added(self.grid).to(latents.dtype)
        queries = torch.cat([self.class_token, queries]).expand(latents.shape[0], -1, -1)
        tokens = self.transformer(queries, latents + self.latent_positions)[:, 1:]
        return rearrange(tokens, "b (rows columns) d -> b d rows columns", rows=self.grid[0])
