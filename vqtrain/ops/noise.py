"""Random numbers that belong to samples, whatever batch they are in."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.ops.seeds import seed_for


@final
class SampleNoise:
    """Random numbers of the samples of a batch, the same each time they are drawn.

    Args:
        seeds: A seed for each sample, in parts.
    """

    def __init__(self, *, seeds: Sequence[Sequence[int]]) -> None:
        self.seeds = seeds

    def normal(self, like: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c *grid"]:
        """Draw from the normal distribution, in the shape of a tensor."""
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        for sample, generator in zip(noise, self.generators(like.device, 0), strict=True):
            sample.normal_(generator=generator)
        return noise

    def uniform(self, like: Float[Tensor, " b *shape"], start: int) -> Float[Tensor, " b *shape"]:
        """Draw from [0, 1), in the shape of a tensor; with another ``start`` other numbers."""
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        for sample, generator in zip(noise, self.generators(like.device, start), strict=True):
            sample.uniform_(generator=generator)
        return noise

    def uniform_per_sample(self, like: Float[Tensor, " b *shape"]) -> Float[Tensor, " b *ones"]:
        """Draw one number of [0, 1) for each sample, in a shape that goes with a tensor's."""
        return self.uniform(like.new_zeros(len(like), *(1,) * (like.ndim - 1)), 1)

    def gumbel(self, like: Float[Tensor, "n k"], start: int) -> Float[Tensor, "n k"]:
        """Draw from the Gumbel distribution for scores of codes from ``start`` on.

        Vectors are listed sample by sample. The largest score with such noise is a draw from the
        softmax of the scores.
        """
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        samples = noise.view(len(self.seeds), -1, like.shape[1])
        for sample, generator in zip(samples, self.generators(like.device, start), strict=True):
            sample.exponential_(generator=generator)
        return noise.log_().neg_()

    def generators(self, device: torch.device, start: int) -> list[torch.Generator]:
        """Make a generator for each sample."""
        return [torch.Generator(device).manual_seed(seed_for(*seed, start)) for seed in self.seeds]
