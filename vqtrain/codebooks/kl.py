"""No tokens at all: a Gaussian for each position, the continuous baseline of latent diffusion."""

from typing import Annotated, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.codebooks.parts.lookup import no_ids
from vqtrain.codebooks.parts.noise import NoiseSource
from vqtrain.ranges import at_least, checked

# Of log-variances, so that exp stays finite.
LOG_VARIANCES = (-30.0, 20.0)


@final
class KL(Codebook):
    """Reads latents as means and log-variances, and passes on a sample; in eval mode the mean.

    It has no ids: ``encode`` is refused, and ``latents`` and ``quantize`` are what remains.

    Args:
        size: Changes nothing, so that a sweep over sizes can hold this baseline; None, or at
            least 1.
        dim: Channels of a sample, at least 1.
        kl_weight: Weight of the divergence from the standard normal distribution, in nats, as a
            mean per element, >= 0.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Kingma and Welling 2013, arXiv:1312.6114, appendix B; Rombach et al. 2021, arXiv:2112.10752,
        section 3.1. Deviation: the divergence is a mean per element, not a sum.
    """

    size = 0
    num_codebooks = 0
    id_order = "no ids"
    selection_rule = "the mean of a normal distribution"

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)] | None,  # noqa: ARG002 - see its description
        dim: Annotated[int, at_least(1)],
        kl_weight: Annotated[float, at_least(0)],
    ) -> None:
        super().__init__()
        self.dim, self.kl_weight = dim, kl_weight
        self.noise = NoiseSource()

    @property
    def in_channels(self) -> int:
        """A mean and a log-variance of each channel."""
        return 2 * self.dim

    def forward(self, z: Float[Tensor, "b d *grid"]) -> Quantized:
        """Draw a sample in training, and take the mean in eval mode."""
        mean, log_variance = z.chunk(2, dim=1)
        log_variance = log_variance.clamp(*LOG_VARIANCES)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
        z_q = mean
        if self.training:
            noise = self.noise.next_call(z.shape[0]).normal(mean)
            z_q = mean + (log_variance / 2).exp() * noise
        return Quantized(
            z_q=z_q,
            token_ids=torch.empty(z.shape[0], 0, *z.shape[2:], dtype=torch.int64, device=z.device),
            loss=self.kl_weight * divergence,
            metrics={"divergence": divergence.detach()},
        )

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Refuse: there are no ids."""
        del token_ids
        raise no_ids("kl")
