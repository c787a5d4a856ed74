"""Vectors of ids, which both go into a transformer and score what comes out of it."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vqtrain.generation.form import TokenForm
from vqtrain.generation.network import INITIAL_STD
from vqtrain.generation.sampling import Sampling, draw
from vqtrain.ops.precision import at_least_float32, without_autocast

MAX_LOGITS = 2**27  # that are kept for the backward pass: 0.5 GiB in float32
MAX_DRAWN = 2**24  # logits from which ids are drawn at once


@final
class Vocabulary(nn.Module):
    """A table with a vector for each value of a condition, each id of each codebook, and others.

    The logit of an id is the product of its vector with an output, plus a bias. One table for both
    halves the memory of a large vocabulary, and learns in fewer steps than two.

    Args:
        form: Of the ids.
        before: Values before the ids: of a condition.
        after: Values after the ids, such as a mask.
        dim: Channels.

    References:
        Press and Wolf 2016, arXiv:1608.05859.
    """

    def __init__(self, *, form: TokenForm, before: int, after: int, dim: int) -> None:
        super().__init__()
        self.before, self.size = before, form.size
        ids = form.num_codebooks * form.size
        self.table = nn.Parameter(torch.empty(before + ids + after, dim))
        self.bias = nn.Parameter(torch.zeros(form.num_codebooks, form.size))
        nn.init.normal_(self.table, std=INITIAL_STD)

    def flops(self, positions: int) -> int:
        """Return the operations of scores at so many positions, each of one codebook."""
        return 2 * positions * self.size * self.table.shape[1]

    def forward(self, values: Int64[Tensor, "b n"]) -> Float[Tensor, "b n dim"]:
        """Look up vectors: ids of codebook i begin at ``before + i * size``."""
        return F.embedding(values, self.table)

    def logits(self, hidden: Float[Tensor, "n dim"], number: int) -> Float[Tensor, "n size"]:
        """Score the ids of one codebook."""
        first = self.before + number * self.size
        return F.linear(hidden, self.table[first : first + self.size], self.bias[number])

    def draw(
        self,
        hidden: Float[Tensor, "b n dim"],
        number: int,
        sampling: Sampling,
        generator: torch.Generator,
    ) -> Int64[Tensor, "b n"]:
        """Draw ids of one codebook, in parts where the vocabulary is large."""
        rows = rearrange(hidden, "b n dim -> (b n) dim")
        parts = torch.split(rows, max(1, MAX_DRAWN // self.size))
        drawn = [draw(self.logits(part, number), sampling, generator) for part in parts]
        return torch.cat(drawn).reshape(hidden.shape[:2])

    def nats(
        self, hidden: Float[Tensor, "b k n dim"], token_ids: Int64[Tensor, "b k n"]
    ) -> Float[Tensor, "b k n"]:
        """Return the code length of each id, in nats.

        Logits of large vocabularies are computed again in the backward pass, in parts.
        """
        b, k, n = token_ids.shape
        rows = max(1, MAX_LOGITS // self.size)
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
        logits = at_least_float32(self.logits(hidden, number))
        with without_autocast(logits):
            return F.cross_entropy(logits, token_ids, reduction="none")
