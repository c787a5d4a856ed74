"""Means of training metrics since the last logged step, kept on the device until then."""

from collections.abc import Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from vqtrain import distributed
from vqtrain.metrics.codebook import perplexity, usage


class Window:
    """Sums of what the batches since the last line reported, and a histogram of their ids.

    Nothing here waits for the device before a line is due. The sums are part of a checkpoint, so
    that the first line after a resume is what it would have been.

    Args:
        num_codebooks: Codebooks k of the tokenizer.
        size: Ids in each.
    """

    def __init__(self, *, num_codebooks: int, size: int) -> None:
        self.num_codebooks, self.size = num_codebooks, size
        self.clear()

    def clear(self) -> None:
        """Begin a new window."""
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.histogram: Tensor | None = None
        self.pending: list[tuple[dict[str, Tensor], Tensor]] = []

    def add(
        self,
        terms: Mapping[str, Tensor],
        codebook: Mapping[str, Tensor],
        token_ids: Int64[Tensor, "b k *tokens"],
    ) -> None:
        """Note what one batch reported; it counts once the step has ended well.

        Args:
            terms: Detached terms of the objective, ``generator/...`` and ``discriminator/...``.
            codebook: Detached scalars of the codebook.
            token_ids: Ids of the batch.
        """
        values = {f"train/{name}": value for name, value in terms.items()}
        values |= {f"train/codebook/{name}": value for name, value in codebook.items()}
        self.pending.append((values, histogram_of(token_ids, self.size)))

    def add_step(self, values: Mapping[str, Tensor]) -> None:
        """Count the batches of a step that ended well, and what the step itself reports."""
        for batch, histogram in self.pending:
            self.accumulate(batch)
            self.histogram = histogram if self.histogram is None else self.histogram + histogram
        self.accumulate({f"train/{name}": value for name, value in values.items()})
        self.pending.clear()

    def forget_step(self) -> None:
        """Leave out the batches of a step that was skipped."""
        self.pending.clear()

    def accumulate(self, values: Mapping[str, Tensor]) -> None:
        """Add scalars to their sums, in float64."""
        for name, value in values.items():
            self.sums[name] = (
                self.sums.get(name, torch.zeros_like(value, dtype=torch.float64)) + value
            )
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the means over all ranks, and begin a new window; collective."""
        if self.histogram is None:
            return {}
        names, sums, counts, histogram = self.totals(self.histogram)
        result = dict(zip(names, (sums / counts).tolist(), strict=True))
        result["train/codebook/usage"] = usage(histogram).item()
        result["train/codebook/perplexity"] = perplexity(histogram).item()
        self.clear()
        return result

    def gather(self) -> None:
        """Bring what all ranks have noted together on the first one; collective."""
        if self.histogram is None:
            return
        is_first = distributed.rank() == 0
        names, sums, counts, histogram = self.totals(self.histogram)
        self.sums = dict(zip(names, sums * is_first, strict=True))
        self.counts = dict(zip(names, (counts * is_first).tolist(), strict=True))
        self.histogram = histogram * is_first

    def totals(self, histogram: Tensor) -> tuple[list[str], Tensor, Tensor, Tensor]:
        """Return the names, and the sums, counts and histogram over all ranks; collective."""
        names = sorted(self.sums)
        counts = torch.tensor([self.counts[name] for name in names], device=histogram.device)
        sums = torch.stack([self.sums[name] for name in names])
        sums, counts, histogram = map(distributed.all_reduce_sum, (sums, counts, histogram))
        return names, sums, counts, histogram

    def state_dict(self) -> dict[str, object]:
        """Return the state as tensors and plain data; that of all ranks after ``gather``."""
        return {"sums": self.sums, "counts": self.counts, "histogram": self.histogram}

    def load_state_dict(self, state: Mapping[str, object], device: torch.device) -> None:
        """Take a state back on the first rank, onto a device; the others begin with nothing."""
        sums, counts, histogram = state["sums"], state["counts"], state["histogram"]
        assert isinstance(sums, dict)
        assert isinstance(counts, dict)
        is_first = distributed.rank() == 0
        self.clear()
        self.sums = {name: value.to(device) * is_first for name, value in sums.items()}
        self.counts = {name: count * is_first for name, count in counts.items()}
        if isinstance(histogram, Tensor):
            self.histogram = histogram.to(device) * is_first


def histogram_of(token_ids: Int64[Tensor, "b k *tokens"], size: int) -> Int64[Tensor, "k size"]:
    """Count how often each codebook's ids occur."""
    k = token_ids.shape[1]
    by_codebook = token_ids.transpose(0, 1).flatten(1)
    offsets = size * torch.arange(k, device=token_ids.device)[:, None]
    return torch.bincount((by_codebook + offsets).flatten(), minlength=k * size).reshape(k, size)
