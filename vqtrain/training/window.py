"""Means of training metrics since the last logged step, kept on the device until then."""

from collections.abc import Mapping

import torch
from jaxtyping import Int64
from torch import Tensor

from vqtrain import distributed
from vqtrain.metrics.parts.codebook_usage import IdCounts


class Window:
    """Sums of what the batches since the last line reported, and a histogram of their ids.

    Nothing here waits for the device before a line is due. The sums are part of a checkpoint, so
    that the first line after a resume equals that of an uninterrupted run.

    Args:
        num_codebooks: Codebooks k of the tokenizer.
        size: Ids in each.

    Attributes:
        tokens: Ids of each codebook that the last means were over.
    """

    def __init__(self, *, num_codebooks: int, size: int) -> None:
        self.ids = IdCounts(num_codebooks=num_codebooks, size=size)
        self.tokens = 0
        self.clear()

    def clear(self) -> None:
        """Begin a new window."""
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.ids.clear()

    def add(
        self,
        terms: Mapping[str, Tensor],
        codebook: Mapping[str, Tensor],
        token_ids: Int64[Tensor, "b k *tokens"],
    ) -> None:
        """Count what one batch of a step that is applied has reported.

        Args:
            terms: Detached terms of the objective, ``generator/...`` and ``discriminator/...``.
            codebook: Detached scalars of the codebook.
            token_ids: Ids of the batch.
        """
        values = {f"train/{name}": value for name, value in terms.items()}
        values |= {f"train/codebook/{name}": value for name, value in codebook.items()}
        self.accumulate(values)
        self.ids.add(token_ids)

    def add_step(self, values: Mapping[str, Tensor]) -> None:
        """Count what a step that is applied has reported itself."""
        self.accumulate({f"train/{name}": value for name, value in values.items()})

    def accumulate(self, values: Mapping[str, Tensor]) -> None:
        """Add scalars to their sums, in float64."""
        for name, value in values.items():
            self.sums[name] = (
                self.sums.get(name, torch.zeros_like(value, dtype=torch.float64)) + value
            )
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the means over all ranks, and begin a new window; collective."""
        if not self.sums:
            return {}
        names, sums, counts = self.totals()
        result = dict(zip(names, (sums / counts).tolist(), strict=True))
        self.ids.reduce()
        self.tokens = self.ids.tokens
        result |= {f"train/codebook/{name}": v for name, v in self.ids.metrics().items()}
        self.clear()
        return result

    def gather(self) -> None:
        """Collect what all ranks have noted on the first one; collective."""
        if not self.sums:
            return
        is_first = distributed.rank() == 0
        names, sums, counts = self.totals()
        self.ids.reduce()
        if not is_first:
            self.ids.empty()
        self.sums = dict(zip(names, sums * is_first, strict=True))
        self.counts = dict(zip(names, (counts * is_first).tolist(), strict=True))

    def totals(self) -> tuple[list[str], Tensor, Tensor]:
        """Return the names, and the sums and counts over all ranks; collective."""
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name] for name in names])
        counts = torch.tensor([self.counts[name] for name in names], device=sums.device)
        sums, counts = map(distributed.all_reduce_sum, (sums, counts))
        return names, sums, counts

    def state_dict(self) -> dict[str, object]:
        """Return the state as tensors and plain data; that of all ranks after ``gather``."""
        return {"sums": self.sums, "counts": self.counts, "ids": self.ids.state_dict()}

    def load_state_dict(self, state: Mapping[str, object], device: torch.device) -> None:
        """Restore a state on the first rank, onto a device; the others begin with nothing."""
        sums, counts, ids = state["sums"], state["counts"], state["ids"]
        assert isinstance(sums, dict)
        assert isinstance(counts, dict)
        assert isinstance(ids, dict)
        is_first = distributed.rank() == 0
        self.clear()
        self.sums = {name: value.to(device) * is_first for name, value in sums.items()}
        self.counts = {name: count * is_first for name, count in counts.items()}
        self.ids.load_state_dict(ids, device)
        if not is_first:
            self.ids.empty()
