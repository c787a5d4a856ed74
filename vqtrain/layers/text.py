"""A small transformer over texts, which needs no vocabulary: it reads their UTF-8 bytes."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.transformer import EPS, TransformerBlock, initialize, whole_heads

# The token before the first byte, and where there is no byte.
START = 256


@final
class TextTransformer(nn.Module):
    """Maps each text to the output of a token before its first byte.

    A text has the same output whatever the others in the batch are.

    Args:
        dim: Channels of the tokens.
        depth: Blocks.
        num_heads: Attention heads.
        max_bytes: Bytes of a text that are read; the others are cut off.

    Attributes:
        dim: Channels of the output.

    Raises:
        ConfigError: If the heads do not divide ``dim``.
    """

    def __init__(self, *, dim: int, depth: int, num_heads: int, max_bytes: int) -> None:
        super().__init__()
        self.dim, self.max_bytes = dim, max_bytes
        self.tokens = nn.Embedding(START + 1, dim)
        self.positions = nn.Parameter(torch.empty(max_bytes + 1, dim))
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim=dim,
                num_heads=num_heads,
                head_dim=whole_heads(dim, num_heads),
                mlp_dim=4 * dim,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=EPS)
        initialize(self, std=0.02)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, texts: Sequence[str]) -> Float[Tensor, "b dim"]:
        """Map texts to vectors."""
        read = [text.encode()[: self.max_bytes] for text in texts]
        longest = max(map(len, read))
        rows = [[START, *one, *[START] * (longest - len(one))] for one in read]
        ids = torch.tensor(rows, device=self.positions.device)
        ends = torch.tensor([len(one) for one in read], device=ids.device)
        mask = torch.arange(longest + 1, device=ids.device) <= ends[:, None]
        x = self.tokens(ids) + self.positions[: longest + 1]
        for block in self.blocks:
            x = block(x, mask=mask)
        return self.norm(x[:, 0])
