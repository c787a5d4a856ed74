"""Random numbers of codebooks, the same for any number of ranks and batches in a step."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain import distributed
from vqtrain.codebooks.parts.step_state import StepState
from vqtrain.ops.seeds import seed_for


@final
class NoiseSource(StepState):
    """Random numbers that belong to a sample's place in the step, whatever its rank and batch.

    Within one call of the codebook they are the same each time they are drawn, so that a backward
    pass can draw them again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seed, self.used = 0, 0

    def begin_step(self, step: int, seed: int) -> None:
        """Begin with the first sample of a step."""
        self.seed = seed_for(seed, "noise", step)
        self.discard_step()

    def discard_step(self) -> None:
        """Go back to the first sample."""
        self.used = 0

    def next_call(self, samples: int) -> "CallNoise":
        """Return the noise of one call of the codebook, for that many samples on each rank."""
        batch, call = divmod(self.used, self.calls)
        self.used += 1
        places = distributed.places(batch, samples)
        return CallNoise(seeds=[(self.seed, call, place) for place in places])


@final
class CallNoise:
    """The random numbers of one call.

    Args:
        seeds: Seeds of each sample.
    """

    def __init__(self, *, seeds: list[tuple[int, int, int]]) -> None:
        self.seeds = seeds

    def normal(self, like: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b c *grid"]:
        """Draw from the normal distribution, in the shape of a tensor."""
        noise = torch.empty_like(like, memory_format=torch.contiguous_format)
        for sample, generator in zip(noise, self.generators(like.device, 0), strict=True):
            sample.normal_(generator=generator)
        return noise

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
