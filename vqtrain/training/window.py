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
            terms: Detached terms of the generator's objective.
            codebook: Detached scalars of the codebook.
            token_ids: Ids of the batch.
        """
        values = {f"train/generator/{name}": value for name, value in terms.items()}
        values |= {f"train/codebook/{name}": value for name, value in codebook.items()}
        self.pending.append((values, histogram_of(token_ids, self.size)))

    def add_step(self, values: Mapping[str, Tensor]) -> None:
        """Count the batches of a step that ended well, and what the step itself reports."""
        for batch, histogram in self.pending:
            self.accumulate(batch)
            self.histogram = histogram if self.histogram is None else self.histogram + histogram
        self.accumulate({f"train/generator/{name}": value for name, value in values.items()})
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
        names = sorted(self.sums)
        means = torch.stack([self.sums[name] / self.counts[name] for name in names])
        means = distributed.all_reduce_sum(means) / distributed.world_size()
        histogram = distributed.all_reduce_sum(self.histogram)
        result = dict(zip(names, means.tolist(), strict=True))
        result["train/codebook/usage"] = usage(histogram).item()
        result["train/codebook/perplexity"] = perplexity(histogram).item()
        self.clear()
        return result

    def state_dict(self) -> dict[str, object]:
        """Return the state as tensors and plain data."""
        return {"sums": self.sums, "counts": self.counts, "histogram": self.histogram}

    def load_state_dict(self, state: Mapping[str, object], device: torch.device) -> None:
        """Take a state back, onto a device."""
        sums, counts, histogram = state["sums"], state["counts"], state["histogram"]
        assert isinstance(sums, dict)
        assert isinstance(counts, dict)
        self.sums = {name: value.to(device) for name, value in sums.items()}
        self.counts = dict(counts)
        self.histogram = histogram.to(device) if isinstance(histogram, Tensor) else None


def histogram_of(token_ids: Int64[Tensor, "b k *tokens"], size: int) -> Int64[Tensor, "k size"]:
    """Count how often each codebook's ids occur."""
    k = token_ids.shape[1]
    by_codebook = token_ids.transpose(0, 1).flatten(1)
    offsets = size * torch.arange(k, device=token_ids.device)[:, None]
    return torch.bincount((by_codebook + offsets).flatten(), minlength=k * size).reshape(k, size)
