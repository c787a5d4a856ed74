"""Gaussian noise whose size is drawn for each sample."""

from typing import Annotated, final

from jaxtyping import Float, Int64
from torch import Tensor

from vqtrain.latent_noise.base import LatentNoise
from vqtrain.ops.noise import SampleNoise
from vqtrain.ranges import FINITE, at_least, checked


@final
class Gaussian(LatentNoise):
    """Adds normal noise of a standard deviation that is drawn from U(0, ``max_std``).

    Args:
        max_std: In units of the latents, at least 0.

    Raises:
        ConfigError: If it is out of range.

    References:
        Zheng et al. 2025, arXiv:2510.11690 (RAE), its code, with 0.8 for latents of unit variance.
    """

    @checked
    def __init__(self, *, max_std: Annotated[float, at_least(0), FINITE]) -> None:
        super().__init__()
        self.max_std = max_std

    def change(
        self,
        z_q: Float[Tensor, "b c *grid"],
        token_ids: Int64[Tensor, "b k *tokens"],
        codes: Float[Tensor, "size c"] | None,
        noise: SampleNoise,
    ) -> Float[Tensor, "b c *grid"]:
        """Add noise."""
        del token_ids, codes
        std = self.max_std * noise.uniform_per_sample(z_q)
        return z_q + std * noise.normal(z_q)
