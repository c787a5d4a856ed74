"""A target for the divergences of a Gaussian autoencoder, so that points can stand for samples."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.codebooks.parts import normal
from vqtrain.codebooks.parts.step_state import Counts

# Bits beside the target that count as in it.
TOLERANCE = 0.5
# By which the weights change in a step.
FACTOR = 1.01
# Smallest and largest weight of all groups, of those above the target, of those below it.
LIMITS = ((1e-6, 1.0, 1e-3), (1e6, 1e3, 1.0))


@final
class DivergenceTarget(nn.Module):
    """Weights the divergence of each group of channels, so that all come near a number of bits.

    The weight of all groups grows while their mean is above the target, and else falls. That of
    groups above it, from 1 on, grows while there are any, and that of groups below it falls from 1.

    Args:
        bits: The target for each group.
        num_groups: Groups of channels, as of ``normal.bits_of_groups``.

    References:
        Xu et al. 2025, arXiv:2512.06609, section 3.3. Deviation: the weights follow the whole step,
        on all ranks, and the weight of all groups has limits.
    """

    weights: Tensor

    def __init__(self, bits: float, num_groups: int) -> None:
        super().__init__()
        self.bits, self.num_groups = bits, num_groups
        self.register_buffer("weights", torch.ones(3))
        self.sums = Counts(1, 4)

    def forward(
        self, divergence: Float[Tensor, "b c *grid"]
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the weighted mean of divergences in nats, and scalars to log."""
        bits = normal.bits_of_groups(divergence, self.num_groups)
        above, below = bits > self.bits + TOLERANCE, bits < self.bits - TOLERANCE
        of_all, of_above, of_below = self.weights
        weight = of_all * torch.where(above, of_above, torch.where(below, of_below, 1.0))
        if self.training:
            counts = [bits.detach().sum(), bits.numel() * torch.ones_like(of_all)]
            found = torch.stack([*counts, above.sum(), below.sum()])
            self.sums.add(found.new_zeros(1, dtype=torch.int64), found[None])
        channels = divergence.shape[1] // self.num_groups
        return (weight * bits).mean() * (math.log(2) / channels), {
            "bits": bits.detach().mean(),
            "in_target": 1 - (above | below).to(bits.dtype).mean(),
        }

    @torch.no_grad()
    def update(self) -> Tensor:
        """Change the weights by what the step has had; return the weight of all groups in it."""
        used = self.weights[0].clone()
        bits, count, above, below = self.sums.take()[0]
        grows = torch.stack([bits > count * self.bits, above > 0, below == 0])
        self.weights.mul_(torch.where(grows, FACTOR, 1 / FACTOR))
        low, high = self.weights.new_tensor(LIMITS)
        self.weights.clamp_(low, high)
        return used
