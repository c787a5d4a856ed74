"""The contract of every noise on latents."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int64
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.ops.noise import SampleNoise
from vqtrain.ops.seeds import seed_for


class LatentNoise(nn.Module, ABC):
    """Changes the latents that the decoder gets in training, so that it forgives such changes.

    What it draws depends on the seed, the step and a sample's place in it, and not on how the step
    is split into batches and ranks. It has no parameters, and is off outside of training.

    Attributes:
        needs_codes: Whether it takes the ids and their vectors, from a codebook of one id a token.
    """

    needs_codes: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.begin_step(0, 0)

    def begin_step(self, step: int, seed: int) -> None:
        """Begin a step of training, with the same arguments on every rank."""
        self.step, self._seed = step, seed_for(seed, "latent noise", step)
        self._batches = 0

    def forward(
        self,
        z_q: Float[Tensor, "b c *grid"],
        token_ids: Int64[Tensor, "b k *tokens"],
        codes: Float[Tensor, "size c"] | None,
    ) -> Float[Tensor, "b c *grid"]:
        """Return what the decoder gets for the next batch of the step, with gradients to ``z_q``.

        Args:
            z_q: Quantized latents, of at least float32.
            token_ids: Their ids.
            codes: The vectors of all ids, without a gradient; None unless ``needs_codes``.
        """
        places = distributed.places(self._batches, len(z_q))
        self._batches += 1
        noise = SampleNoise(seeds=[(self._seed, place) for place in places])
        return self.change(z_q, token_ids, codes, noise)

    @abstractmethod
    def change(
        self,
        z_q: Float[Tensor, "b c *grid"],
        token_ids: Int64[Tensor, "b k *tokens"],
        codes: Float[Tensor, "size c"] | None,
        noise: SampleNoise,
    ) -> Float[Tensor, "b c *grid"]:
        """Change latents at step ``step``, with random numbers of each sample.

        Other arguments are those of ``forward``.
        """
