"""From what a transformer makes of positions to scores of ids, and their cross entropy."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vqtrain.generation.network import INITIAL_STD
from vqtrain.ops.precision import at_least_float32, without_autocast

MAX_LOGITS = 2**27  # that are kept for the backward pass: 0.5 GiB in float32


@final
class Heads(nn.Module):
    """A linear map for each codebook, from channels to logits of its ids.

    Args:
        num_codebooks: Codebooks, k.
        size: Ids of each.
        dim: Channels.
    """

    def __init__(self, *, num_codebooks: int, size: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_codebooks, size, dim))
        self.bias = nn.Parameter(torch.zeros(num_codebooks, size))
        nn.init.normal_(self.weight, std=INITIAL_STD)

    def flops(self, positions: int) -> int:
        """Return the operations of so many positions, each of one codebook."""
        return 2 * positions * self.weight[0].numel()

    def forward(self, hidden: Float[Tensor, "n dim"], number: int) -> Float[Tensor, "n size"]:
        """Return the logits of one codebook."""
        return F.linear(hidden, self.weight[number], self.bias[number])

    def nats(
        self, hidden: Float[Tensor, "b k n dim"], token_ids: Int64[Tensor, "b k n"]
    ) -> Float[Tensor, "b k n"]:
        """Return the code length of each id, in nats.

        Logits of large vocabularies are computed again in the backward pass, in parts.
        """
        b, k, n = token_ids.shape
        rows = max(1, MAX_LOGITS // self.weight.shape[1])
        found = []
        for number in range(k):
            parts = zip(
                torch.split(rearrange(hidden[:, number], "b n dim -> (b n) dim"), rows),
                torch.split(token_ids[:, number].flatten(), rows),
                strict=True,
            )
            if k * b * n <= rows:
                each = [self._nats(part, ids, number) for part, ids in parts]
            else:
                each = [
                    checkpoint(
                        self._nats, part, ids, number, use_reentrant=False, preserve_rng_state=False
                    )
                    for part, ids in parts
                ]
            found.append(torch.cat(each).reshape(b, n))
        return torch.stack(found, dim=1)

    def _nats(
        self, hidden: Float[Tensor, "n dim"], token_ids: Int64[Tensor, " n"], number: int
    ) -> Float[Tensor, " n"]:
        logits = at_least_float32(self(hidden, number))
        with without_autocast(logits):
            return F.cross_entropy(logits, token_ids, reduction="none")
