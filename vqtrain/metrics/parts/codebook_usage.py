"""How much of a codebook is used, from one histogram of all ids of all ranks.

``counts`` says how often each id of each codebook was seen.
"""

import math
from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from vqtrain import distributed

# Of the ids that an even use of the codebook would have shown, a collapsed one shows less.
LEAST_USE = 0.1

# Larger codebooks are counted by the ids that occur.
LARGEST_DENSE = 2**22


def usage(counts: Int64[Tensor, "k size"]) -> Float64[Tensor, ""]:
    """Return the fraction of ids that were seen, in [0, 1], as the mean over codebooks.

    Example:
        >>> usage(torch.tensor([[5, 0, 1, 0]])).item()
        0.5
    """
    return (counts > 0).double().mean()


def perplexity(counts: Int64[Tensor, "k size"]) -> Float64[Tensor, ""]:
    """Return exp of the entropy of the ids in nats, in [1, size], as the mean over codebooks.

    It is the number of ids that would carry as much information if all were equally frequent. A
    codebook of which no id was seen counts as 0.

    Example:
        >>> round(perplexity(torch.tensor([[3, 3, 3, 0]])).item(), 6)
        3.0
    """
    totals = counts.sum(dim=1, keepdim=True)
    probabilities = counts.double() / totals.clamp(min=1)
    entropies = torch.special.entr(probabilities).sum(dim=1)
    return torch.where(totals.squeeze(1) > 0, entropies.exp(), 0.0).mean()


def top1_share(counts: Int64[Tensor, "k size"]) -> Float64[Tensor, ""]:
    """Return the share of the most frequent id, in [0, 1], as the mean over codebooks.

    Example:
        >>> top1_share(torch.tensor([[3, 1, 0, 0]])).item()
        0.75
    """
    totals = counts.sum(dim=1).clamp(min=1)
    return (counts.amax(dim=1).double() / totals).mean()


def is_collapsed(perplexity: float, *, size: int, tokens: int) -> bool:
    """Say whether hardly anything of a codebook is used: less than a tenth of what could be.

    Args:
        perplexity: Of the ids.
        size: Ids of the codebook.
        tokens: So many ids were seen: few of them cannot show many.

    Example:
        >>> is_collapsed(90.0, size=65536, tokens=1000), is_collapsed(2.0, size=16, tokens=10**6)
        (True, False)
    """
    # So many ids would occur if all were equally probable.
    possible = size * -math.expm1(-tokens / size)
    return perplexity < LEAST_USE * possible


@final
class IdCounts:
    """A histogram of the ids of each codebook.

    Up to ``LARGEST_DENSE`` ids there is a place for each; beyond that the ids that occur are kept
    with their counts, so that memory grows with what was seen.

    Args:
        num_codebooks: Codebooks k; 0 for one that is continuous, of which nothing is counted.
        size: Ids in each.
    """

    def __init__(self, *, num_codebooks: int, size: int) -> None:
        self.num_codebooks, self.size = num_codebooks, size
        self.is_dense = size <= LARGEST_DENSE
        self.clear()

    def clear(self) -> None:
        """Forget what was counted."""
        # Of each codebook: the ids that occur, in order, or None for all; and their counts.
        self.rows: list[tuple[Tensor | None, Tensor]] = []

    def empty(self) -> None:
        """Count nothing, in the form that there is, so that ranks reduce alike."""
        self.rows = [
            (None, torch.zeros_like(n)) if ids is None else (ids[:0], n[:0]) for ids, n in self.rows
        ]

    def add(self, token_ids: Int64[Tensor, "b k *tokens"]) -> None:
        """Count ids."""
        rows: list[tuple[Tensor | None, Tensor]] = []
        for ids in token_ids.transpose(0, 1).flatten(1):
            if self.is_dense:
                rows.append((None, torch.bincount(ids, minlength=self.size)))
            else:
                rows.append(torch.unique(ids, return_counts=True))
        known = zip(self.rows, rows, strict=True) if self.rows else ([row] for row in rows)
        self.rows = [merged(list(parts)) for parts in known]

    def reduce(self) -> None:
        """Replace the counts by those over all ranks; collective."""
        if self.is_dense:
            self.rows = [(None, distributed.all_reduce_sum(counts)) for _, counts in self.rows]
            return
        reduced: list[tuple[Tensor | None, Tensor]] = []
        for ids, counts in self.rows:
            assert ids is not None, "a large codebook lists its ids"
            everywhere = distributed.all_gather_lists([(ids.cpu(), counts.cpu())])
            reduced.append(merged([(a.to(ids.device), n.to(ids.device)) for a, n in everywhere]))
        self.rows = reduced

    @property
    def tokens(self) -> int:
        """Ids of each codebook that were counted."""
        return int(self.rows[0][1].sum()) if self.rows else 0

    def metrics(self) -> dict[str, float]:
        """Say how much of the codebook is used; nothing if nothing was counted.

        Above ``LARGEST_DENSE`` ids, usage is a share of the ids that so many tokens can reach.
        """
        if not self.rows:
            return {}
        counts = torch.nn.utils.rnn.pad_sequence([n for _, n in self.rows], batch_first=True)
        found = {"usage": usage(counts).item()}
        if not self.is_dense:
            seen = (counts > 0).sum().item() / len(self.rows)
            found = {"usage@tokens": seen / min(self.size, self.tokens)}
        return {
            **found,
            "perplexity": perplexity(counts).item(),
            "top1_share": top1_share(counts).item(),
        }

    def state_dict(self) -> dict[str, object]:
        """Return the counts as tensors and plain data."""
        return {"ids": [ids for ids, _ in self.rows], "counts": [n for _, n in self.rows]}

    def load_state_dict(self, state: Mapping[str, object], device: torch.device) -> None:
        """Take counts back, onto a device."""
        ids, counts = state["ids"], state["counts"]
        assert isinstance(ids, list)
        assert isinstance(counts, list)
        self.rows = [
            (None if own is None else own.to(device), n.to(device))
            for own, n in zip(ids, counts, strict=True)
        ]


def merged(rows: Sequence[tuple[Tensor | None, Tensor]]) -> tuple[Tensor | None, Tensor]:
    """Add histograms of one codebook up."""
    listed = [ids for ids, _ in rows if ids is not None]
    counts = [n for _, n in rows]
    if not listed:
        return None, torch.stack(counts).sum(0)
    ids, places = torch.unique(torch.cat(listed), return_inverse=True)
    return ids, torch.zeros_like(ids).index_add_(0, places, torch.cat(counts))
