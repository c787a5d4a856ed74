"""Means of what the steps since the last logged one report, kept on the device until then."""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from vqtrain import distributed


@final
class Means:
    """Sums of scalars in float64, and how many there were of each.

    Nothing here waits for the device before a line is due. The sums are part of a checkpoint, so
    that the first line after a resume equals that of an uninterrupted run.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add scalars to their sums."""
        for name, value in values.items():
            self.sums[name] = (
                self.sums.get(name, torch.zeros_like(value, dtype=torch.float64)) + value
            )
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Return the means over all ranks, and begin anew; collective."""
        if not self.sums:
            return {}
        names, sums, counts = self._totals()
        self.clear()
        return dict(zip(names, (sums / counts).tolist(), strict=True))

    def gather(self) -> None:
        """Collect what all ranks have noted on the first one; collective."""
        if not self.sums:
            return
        is_first = distributed.rank() == 0
        names, sums, counts = self._totals()
        self.sums = dict(zip(names, sums * is_first, strict=True))
        self.counts = dict(zip(names, (counts * is_first).tolist(), strict=True))

    def _totals(self) -> tuple[list[str], Tensor, Tensor]:
        """Return the names, and the sums and counts over all ranks; collective."""
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name] for name in names])
        counts = torch.tensor([self.counts[name] for name in names], device=sums.device)
        sums, counts = map(distributed.all_reduce_sum, (sums, counts))
        return names, sums, counts

    def state_dict(self) -> dict[str, object]:
        """Return the state as tensors and plain data; that of all ranks after ``gather``."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, object], device: torch.device) -> None:
        """Restore a state on the first rank, onto a device; the others begin with nothing."""
        sums, counts = state["sums"], state["counts"]
        assert isinstance(sums, dict)
        assert isinstance(counts, dict)
        is_first = distributed.rank() == 0
        self.sums = {name: value.to(device) * is_first for name, value in sums.items()}
        self.counts = {name: count * is_first for name, count in counts.items()}
