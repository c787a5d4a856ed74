"""What a codebook notes during a step: how often codes won, what they won, and what was random.

A step may have several batches, on several ranks. What is here makes them count as one: sums are
reduced over ranks at the end of the step, and draws go by the place of an image in the joined
batch, whoever has it. Nothing of it is in a checkpoint, since those are written between steps.
"""

from abc import ABC, abstractmethod
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.ops.random import seed_for


class StepState(nn.Module, ABC):
    """State that lives for one step.

    Attributes:
        calls: How often the codebook that owns it is used for one batch; one that serves several
            depths or scales is used several times.
    """

    calls = 1

    @abstractmethod
    def clear(self) -> None:
        """Forget the step, once it was used or if it is skipped."""


@final
class Tally(StepState):
    """Adds up rows by their code, over the batches and ranks of a step.

    Args:
        shape: Number of codes, then the shape of a row; none for a count.
    """

    total: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        # float32 counts are exact up to 2^24 hits of one code in one step.
        self.register_buffer("total", torch.zeros(shape), persistent=False)

    def clear(self) -> None:
        """Forget what was added."""
        self.total.zero_()

    @torch.no_grad()
    def count(self, ids: Int64[Tensor, " n"]) -> None:
        """Count ids."""
        self.total += torch.bincount(ids, minlength=self.total.shape[0])

    @torch.no_grad()
    def add(self, ids: Int64[Tensor, " n"], rows: Float[Tensor, "n d"]) -> None:
        """Add rows to those of their ids."""
        self.total.index_add_(0, ids, rows.to(self.total.dtype))

    @torch.no_grad()
    def reduce(self) -> Float[Tensor, "..."]:
        """Replace the sums by those over all ranks, and return them; collective."""
        distributed.all_reduce_sum_(self.total)
        return self.total


@final
class Pool(StepState):
    """The vectors of a step over all batches and ranks, to draw from."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def clear(self) -> None:
        """Forget the vectors."""
        self.batches.clear()

    def add(self, z: Float[Tensor, "n d"]) -> None:
        """Keep the vectors of one call."""
        self.batches.append(z.detach())

    @torch.no_grad()
    def draw(self, wanted: int) -> Float[Tensor, "m d"]:
        """Draw vectors from those of all ranks, at most as many as there are; collective.

        The draw counts places in the order of the data (call, then batch, then rank, then vector),
        so that neither accumulation nor the number of ranks changes which vectors are drawn, and
        the sum over ranks brings them to all without gathering the pool.
        """
        world, rank = distributed.world_size(), distributed.rank()
        by_call = [torch.stack(self.batches[call :: self.calls]) for call in range(self.calls)]
        available = sum(vectors.shape[0] * vectors.shape[1] * world for vectors in by_call)
        drawn = draw_positions(available, min(wanted, available))
        found = by_call[0].new_zeros(len(drawn), by_call[0].shape[2])
        for vectors in by_call:
            batches, per_batch, _ = vectors.shape
            place, vector = drawn // per_batch, drawn % per_batch
            batch, owner = place // world, place % world
            is_mine = (drawn >= 0) & (batch < batches) & (owner == rank)
            mine = vectors[batch[is_mine].to(found.device), vector[is_mine].to(found.device)]
            found[is_mine.to(found.device)] = mine
            drawn = drawn - batches * world * per_batch  # what is left belongs to later calls
        return distributed.all_reduce_sum(found)


@final
class Noise(StepState):
    """Random numbers that belong to an image's place in the step, whatever its rank and batch.

    Within one call of the codebook they are the same each time one asks, so that a backward pass
    can make them anew. Training sets ``seed`` at the begin of each step, the same on every rank.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seed, self.used = 0, 0

    def clear(self) -> None:
        """Begin with the first image again."""
        self.used = 0

    def next_call(self, images: int) -> "CallNoise":
        """Give the noise of one call of the codebook, for that many images on each rank."""
        batch, call = divmod(self.used, self.calls)
        self.used += 1
        first = (batch * distributed.world_size() + distributed.rank()) * images
        return CallNoise(seeds=[(self.seed, call, first + image) for image in range(images)])


@final
class CallNoise:
    """The random numbers of one call.

    Args:
        seeds: Seeds of each image.
    """

    def __init__(self, *, seeds: list[tuple[int, int, int]]) -> None:
        self.seeds = seeds

    def normal(self, like: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c *grid"]:
        """Draw from the normal distribution, in the shape of a tensor."""
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        for image, generator in zip(noise, self.generators(like.device, 0), strict=True):
            image.normal_(generator=generator)
        return noise

    def gumbel(self, like: Float[Tensor, "n k"], start: int) -> Float[Tensor, "n k"]:
        """Draw from the Gumbel distribution for scores of codes from ``start`` on.

        Vectors are listed image by image. The largest score with such noise is a draw from the
        softmax of the scores.
        """
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        images = noise.view(len(self.seeds), -1, like.shape[1])
        for image, generator in zip(images, self.generators(like.device, start), strict=True):
            image.exponential_(generator=generator)
        return noise.log_().neg_()

    def generators(self, device: torch.device, start: int) -> list[torch.Generator]:
        """Make a generator for each image."""
        return [torch.Generator(device).manual_seed(seed_for(*seed, start)) for seed in self.seeds]


def draw_positions(available: int, wanted: int) -> Int64[Tensor, " wanted"]:
    """Draw positions below ``available`` from torch's global CPU generator.

    No position comes twice before every other came once.
    """
    rounds = -(-wanted // available)
    return torch.cat([torch.randperm(available) for _ in range(rounds)])[:wanted]
