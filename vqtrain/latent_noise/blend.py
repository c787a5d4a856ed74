"""Noise that latents are blended with."""

from typing import Annotated, final

from jaxtyping import Float, Int64
from torch import Tensor

from vqtrain.latent_noise.base import LatentNoise
from vqtrain.ops.noise import SampleNoise
from vqtrain.ranges import FINITE, at_least, checked


@final
class Blend(LatentNoise):
    """Replaces a share of each sample's latents by noise: (1 - t) z + t s e, with t from U(0, 1).

    Args:
        std: Standard deviation s of the noise, in units of the latents, at least 0.

    Raises:
        ConfigError: If it is out of range.

    References:
        Yang et al. 2025, arXiv:2507.15856 (l-DeTok), section 3 and its code.
    """

    @checked
    def __init__(self, *, std: Annotated[float, at_least(0), FINITE]) -> None:
        super().__init__()
        self.std = std

    def change(
        self,
        z_q: Float[Tensor, "b c *grid"],
        token_ids: Int64[Tensor, "b k *tokens"],
        codes: Float[Tensor, "size c"] | None,
        noise: SampleNoise,
    ) -> Float[Tensor, "b c *grid"]:
        """Blend with noise."""
        del token_ids, codes
        return z_q.lerp(self.std * noise.normal(z_q), noise.uniform_per_sample(z_q))
