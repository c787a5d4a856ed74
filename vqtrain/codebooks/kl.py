"""No tokens at all: a Gaussian for each position, the continuous baseline of latent diffusion."""

from collections.abc import Mapping
from typing import Annotated, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.codebooks.parts import normal
from vqtrain.codebooks.parts.lookup import no_ids
from vqtrain.codebooks.parts.noise import NoiseSource
from vqtrain.codebooks.parts.target import DivergenceTarget
from vqtrain.errors import require
from vqtrain.ranges import above, at_least, checked


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
        target_bits: Divergence that each group of channels is to have, in bits, above 0, so that
            ``gaussian`` with 2^target_bits points can take the place of this codebook. The weight
            of the divergence then starts at ``kl_weight``, and changes in each step. None for a
            weight that stays.
        num_groups: Groups of channels for the target, the ``num_codebooks`` of ``gaussian``; a
            divisor of ``dim``.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Kingma and Welling 2013, arXiv:1312.6114, appendix B; Rombach et al. 2021, arXiv:2112.10752,
        section 3.1. Deviation: the divergence is a mean per element, not a sum. For the target see
        ``parts.target``.
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
        target_bits: Annotated[float, above(0)] | None = None,
        num_groups: Annotated[int, at_least(1)] = 1,
    ) -> None:
        super().__init__()
        require(
            dim % num_groups == 0, f"dim must be a multiple of num_groups={num_groups}, got {dim}"
        )
        require(
            target_bits is None or kl_weight > 0,
            "kl_weight must be above 0 with target_bits, got 0: it is what is adapted",
        )
        self.dim, self.kl_weight = dim, kl_weight
        self.target = None if target_bits is None else DivergenceTarget(target_bits, num_groups)
        self.noise = NoiseSource()

    @property
    def in_channels(self) -> int:
        """A mean and a log-variance of each channel."""
        return 2 * self.dim

    def forward(self, z: Float[Tensor, "b d *grid"]) -> Quantized:
        """Draw a sample in training, and take the mean in eval mode."""
        mean, log_variance = normal.split(z)
        divergences = normal.divergences(mean, log_variance)
        divergence = divergences.mean()
        metrics = {"divergence": divergence.detach()}
        if self.target is not None:
            divergence, of_target = self.target(divergences)
            metrics |= of_target
        z_q = mean
        if self.training:
            noise = self.noise.next_call(z.shape[0]).normal(mean)
            z_q = mean + (log_variance / 2).exp() * noise
        return Quantized(
            z_q=z_q,
            token_ids=torch.empty(z.shape[0], 0, *z.shape[2:], dtype=torch.int64, device=z.device),
            loss=self.kl_weight * divergence,
            metrics=metrics,
        )

    def update(self, step: int) -> Mapping[str, Tensor]:
        """Adapt the weight of the divergence, if there is a target."""
        del step
        return {} if self.target is None else {"kl_weight": self.kl_weight * self.target.update()}

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Refuse: there are no ids."""
        del token_ids
        raise no_ids("kl")
