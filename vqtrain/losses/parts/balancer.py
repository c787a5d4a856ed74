"""A balancer of terms by their gradients at the reconstruction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.ops.gradients import gradients_of
from vqtrain.ops.precision import at_least_float32
from vqtrain.ranges import FINITE, above, check_fields, within

EPSILON = 1e-12  # of the paper's code: added to the mean norm


@final
@dataclass(frozen=True, kw_only=True)
class BalancerSettings:
    """Whether gradients are balanced, and how.

    Args:
        enabled: Whether they are.
        decay: Of the running means of norms, in [0, 1).
        norm: Of the gradient of a sample, summed over the terms, above 0.

    Raises:
        ConfigError: If a value is out of range.
    """

    enabled: bool
    decay: Annotated[float, within(0, 1, below_high=True)]
    norm: Annotated[float, above(0), FINITE]

    def __post_init__(self) -> None:
        check_fields(self, "loss.balancer")


@final
class Balancer(nn.Module):
    """Scales each term so that its weight is its share of the gradient at the reconstruction.

    A term's factor is norm * weight / (sum of the weights) / (its mean gradient norm). The norm is
    that of the gradient of a sample's own loss, averaged over all samples of a step, and over the
    steps before by a running mean that is not biased to 0. A term that has not been measured has
    the factor 0, so the first step of a term measures it only.

    Args:
        names: Of the terms.
        decay: Of the running means, in [0, 1).
        norm: Sum of the norms of the scaled gradients of a sample.

    References:
        Defossez et al. 2022, arXiv:2210.13438 (EnCodec), section 3.4, and its code. Deviation:
        means are of the steps before, where the code has that of a batch in its own factor, so that
        a step does not depend on how it is split over batches and ranks; and samples are averaged,
        where the code adds up those of a process, so its norm of 1 is here the batch size of one.
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, names: Sequence[str], *, decay: float, norm: float) -> None:
        super().__init__()
        self.names, self.decay, self.norm = list(names), decay, norm
        # A running mean is one over the other.
        self.register_buffer("sums", torch.zeros(len(self.names)))
        self.register_buffer("counts", torch.zeros(len(self.names)))
        self.discard_step()

    def factors(self, weights: Mapping[str, float]) -> dict[str, Float[Tensor, ""]]:
        """Return the factors of a step's terms by their weights."""
        places = [self.names.index(name) for name in weights]
        sums, counts = self.sums[places], self.counts[places]
        shares = sums.new_tensor(list(weights.values())) * (counts > 0)
        total = shares.sum().clamp(min=torch.finfo(sums.dtype).tiny)
        means = sums / counts.clamp(min=1)
        return dict(zip(weights, self.norm * shares / total / (means + EPSILON), strict=True))

    def balanced(
        self,
        losses: Mapping[str, Float[Tensor, ""]],
        factors: Mapping[str, Float[Tensor, ""] | float],
        points: Sequence[Tensor],
        scale: Float[Tensor, ""] | float,
    ) -> list[Tensor]:
        """Observe the gradients of losses of one batch, and return their sum by factors.

        Args:
            losses: By name, without their factors.
            factors: By name.
            points: Where the gradients are taken: the reconstructions, and what else the losses
                are of.
            scale: As of ``gradients_of``.
        """
        totals = [torch.zeros_like(point) for point in points]
        for name, loss in losses.items():
            gradients = gradients_of([loss], points, scale)
            self.observe(name, gradients[0])
            pairs = zip(totals, gradients, strict=True)
            totals = [total + factors[name] * gradient for total, gradient in pairs]
        return totals

    def observe(self, name: str, gradient: Float[Tensor, "b c *size"]) -> None:
        """Note the gradient of a term of one batch at its reconstructions, without a factor.

        Args:
            name: Of the term.
            gradient: Of a mean over the samples of the batch.
        """
        norms = at_least_float32(gradient).flatten(1).norm(dim=1) * len(gradient)
        self._norms.setdefault(name, []).append(norms.mean())

    def update(self) -> None:
        """Move the running means by the batches of a step; collective."""
        measured = [torch.stack(norms).mean() for norms in self._norms.values()]
        if measured:
            means = distributed.all_reduce_sum(torch.stack(measured)) / distributed.world_size()
            places = [self.names.index(name) for name in self._norms]
            self.sums[places] = self.decay * self.sums[places] + means.to(self.sums)
            self.counts[places] = self.decay * self.counts[places] + 1
        self.discard_step()

    def discard_step(self) -> None:
        """Forget the batches of a step."""
        self._norms: dict[str, list[Tensor]] = {}
