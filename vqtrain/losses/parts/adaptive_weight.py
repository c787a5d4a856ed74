"""A weight that is relative to the reconstruction gradient at one layer of the tokenizer."""

from dataclasses import dataclass
from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain import distributed
from vqtrain.errors import require
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.ops.precision import at_least_float32
from vqtrain.ranges import above, at_least

EPSILON = 1e-4  # of the paper's code: added to the norm of the term's gradient


@final
@dataclass(frozen=True, kw_only=True)
class AdaptiveWeight(Weight):
    """The weight of a term, which may adapt to the gradients of the other terms.

    With ``adaptive`` the weight is multiplied by the ratio of two gradient norms at a layer: that
    of the reconstruction terms over that of the term. So ``weight`` is the norm of the weighted
    gradient relative to the reconstruction gradient.

    Args:
        adaptive: Whether the weight adapts to the gradients.
        min_ratio: Smallest ratio, at least 0.
        max_ratio: Largest ratio, above 0 and at least ``min_ratio``. The gradient vanishes if the
            discriminator is nearly always right, and the ratio would rise by orders of magnitude.

    Raises:
        ConfigError: If a value is out of range.

    References:
        Esser et al. 2021, arXiv:2012.09841, equations 6 and 7, and its code for the constants.
        Deviation: the ratio is over all batches and ranks of a step; its bounds and the ramp are
        additions.
    """

    adaptive: bool
    min_ratio: Annotated[float, at_least(0)]
    max_ratio: Annotated[float, above(0)]

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.min_ratio <= self.max_ratio,
            f"loss.{self.name}.max_ratio must be at least min_ratio={self.min_ratio}, got "
            f"{self.max_ratio}",
        )

    def times(self, step: int, ratio: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Return the weight of a step whose gradients have a ratio."""
        weight = torch.full_like(ratio, self.at(step))
        return weight * ratio.clamp(self.min_ratio, self.max_ratio) if self.adaptive else weight


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How a term of a step compares with the reconstruction terms.

    Attributes:
        reconstruction_gradient: Norm of the reconstruction terms' gradient at the layer.
        gradient: Norm of the unweighted term's.
        ratio: The former over the latter, before clamping.
        weight: Factor of the term in this step.
        share: Of the term in the sum of the weighted norms.
    """

    reconstruction_gradient: Float[Tensor, ""]
    gradient: Float[Tensor, ""]
    ratio: Float[Tensor, ""]
    weight: Float[Tensor, ""]
    share: Float[Tensor, ""]


@final
class GradientNorms:
    """Gradients at one layer, summed over all batches of a step and all ranks before their norm.

    So the ratio of their norms does not depend on how a step is split into batches and ranks, and
    is known at the last batch of the step, for which it is used.
    """

    def __init__(self) -> None:
        self._gradients: Tensor | None = None
        self._batches = 0

    def observe(
        self, reconstruction: Float[Tensor, "*shape"], term: Float[Tensor, "*shape"]
    ) -> None:
        """Add the layer's gradients of one batch, of the unweighted terms."""
        both = torch.stack([at_least_float32(reconstruction), at_least_float32(term)])
        self._gradients = both if self._gradients is None else self._gradients + both
        self._batches += 1

    def balance(self, weight: AdaptiveWeight, step: int) -> Balance:
        """Compare the gradients of all batches of a step, after its last one; collective."""
        assert self._gradients is not None, "the step has had a batch"
        total = distributed.all_reduce_sum(self._gradients)
        mean = total / (self._batches * distributed.world_size())
        self._gradients, self._batches = None, 0
        reconstruction, term = mean.flatten(1).norm(dim=1)
        ratio = reconstruction / (term + EPSILON)
        # In float16 they may overflow: a weight that is not a number lets the step be skipped.
        used = torch.where(mean.isfinite().all(), weight.times(step, ratio), torch.nan)
        weighted = used * term
        return Balance(
            reconstruction_gradient=reconstruction,
            gradient=term,
            ratio=ratio,
            weight=used,
            share=weighted / (reconstruction + weighted),
        )
