"""What a codebook collects during a step: how often codes won, and the latents to restart from.

A step may have several batches, on several ranks. What is here makes them count as one: sums are
reduced over ranks at the end of the step, and draws go by the place of a sample in the joined
batch, whichever rank has it. None of it is in a checkpoint, as those are written between steps.
"""

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vqtrain import distributed


class StepState(nn.Module, ABC):
    """State that lives for one step.

    The codebook that has it as a submodule begins and discards it, see ``Codebook``.

    Attributes:
        calls: How often one batch uses the codebook; several depths or scales may share one.
    """

    calls = 1

    def begin_step(self, step: int, seed: int) -> None:
        """Begin a step with nothing collected."""
        del step, seed
        self.discard_step()

    @abstractmethod
    def discard_step(self) -> None:
        """Drop what was collected."""

    def repeat(self, times: int) -> None:
        """Expect so many times as many calls a batch."""
        self.calls *= times


@final
class Counts(StepState):
    """Adds up vectors by their code, or counts them, over the batches and ranks of a step.

    Args:
        shape: Number of codes, then the shape of a vector; none for a count.
    """

    total: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        # float32 counts are exact up to 2^24 hits of one code in one step.
        self.register_buffer("total", torch.zeros(shape), persistent=False)

    def discard_step(self) -> None:
        """Drop the sums."""
        self.total.zero_()

    @torch.no_grad()
    def count(self, ids: Int64[Tensor, " n"]) -> None:
        """Count ids."""
        self.total += torch.bincount(ids, minlength=self.total.shape[0])

    @torch.no_grad()
    def add(self, ids: Int64[Tensor, " n"], vectors: Float[Tensor, "n d"]) -> None:
        """Add vectors to the sums of their ids."""
        self.total.index_add_(0, ids, vectors.to(self.total.dtype))

    @torch.no_grad()
    def take(self) -> Float[Tensor, "..."]:
        """Return the sums over all ranks, and start from zero again; collective."""
        distributed.all_reduce_sum_(self.total)
        total = self.total.clone()
        self.discard_step()
        return total


@final
class SampleBuffer(StepState):
    """The vectors of a step over all batches and ranks, to draw from once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def discard_step(self) -> None:
        """Drop the vectors."""
        self.batches.clear()

    def add(self, z: Float[Tensor, "n d"]) -> None:
        """Keep the vectors of one call."""
        self.batches.append(z.detach())

    @torch.no_grad()
    def take(self, wanted: int) -> Float[Tensor, "m d"]:
        """Draw vectors from those of all ranks, at most as many as there are; collective.

        The buffer is empty afterwards. The draw counts places in the order of the data (call, then
        batch, then rank, then vector), so that neither accumulation nor the number of ranks changes
        which vectors are drawn, and the sum over ranks brings them to all without gathering the
        buffer.
        """
        world, rank = distributed.world_size(), distributed.rank()
        own = self.batches[0].new_tensor([len(vectors) for vectors in self.batches])
        # Of each rank, as images of several sizes give different numbers of vectors.
        lengths = distributed.all_gather(own).cpu().long().reshape(world, -1)
        order = [n for call in range(self.calls) for n in range(call, len(own), self.calls)]
        ends = lengths[:, order].T.flatten().cumsum(0)
        available = int(ends[-1])
        drawn = draw_positions(available, min(wanted, available))
        found = self.batches[0].new_zeros(len(drawn), self.batches[0].shape[1])
        segment = torch.searchsorted(ends, drawn, right=True)
        for place, number in enumerate(order):
            mine = place * world + rank
            is_here = segment == mine
            first = int(ends[mine]) - len(self.batches[number])
            vectors = (drawn[is_here] - first).to(found.device)
            found[is_here.to(found.device)] = self.batches[number][vectors]
        self.discard_step()
        return distributed.all_reduce_sum(found)


def draw_positions(available: int, wanted: int) -> Int64[Tensor, " wanted"]:
    """Draw positions below ``available`` from torch's global CPU generator.

    No position comes twice before every other came once.
    """
    rounds = -(-wanted // available)
    return torch.cat([torch.randperm(available) for _ in range(rounds)])[:wanted]
