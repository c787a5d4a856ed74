"""Random numbers of codebooks, the same for any number of ranks and batches in a step."""

from typing import final

from vqtrain import distributed
from vqtrain.codebooks.parts.step_state import StepState
from vqtrain.ops.noise import SampleNoise
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

    def next_call(self, samples: int) -> SampleNoise:
        """Return the noise of one call of the codebook, for that many samples on each rank."""
        batch, call = divmod(self.used, self.calls)
        self.used += 1
        places = distributed.places(batch, samples)
        return SampleNoise(seeds=[(self.seed, call, place) for place in places])
