"""Attention over the positions of a feature map."""

from typing import final

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.block import Block
from vqtrain.layers.norm import group_norm


@final
class SpatialAttention(Block):
    """One head of self-attention in which every position of a feature map sees every other.

    Its cost grows with the square of the number of positions, so it belongs on small grids.

    Args:
        channels: Channels in and out, at least 1.

    References:
        Esser et al. 2021, arXiv:2012.09841, table 7. The parameters are named as in its code.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, kernel_size=1)
        self.k = nn.Conv2d(channels, channels, kernel_size=1)
        self.v = nn.Conv2d(channels, channels, kernel_size=1)
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what attention gathers from all positions to ``x``."""
        normed = self.norm(x)
        # The fused kernels want channels as the last axis in memory, not only in name.
        q, k, v = (
            rearrange(project(normed), "b c h w -> b 1 (h w) c").contiguous()
            for project in (self.q, self.k, self.v)
        )
        gathered = F.scaled_dot_product_attention(q, k, v)
        height, width = x.shape[2:]
        return x + self.proj_out(rearrange(gathered, "b 1 (h w) c -> b c h w", h=height, w=width))
