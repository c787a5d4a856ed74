"""Adversarial training: the losses of both sides, and the adaptive weight of the generator's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.errors import require
from vqtrain.losses.adversarial.base import AdversarialLoss, Logits
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.ops.precision import at_least_float32

EPSILON = 1e-4  # of the paper's code: added to the norm of the adversarial gradient


@dataclass(frozen=True, kw_only=True)
class Balance:
    """How the adversarial term of a step compares with the reconstruction terms.

    Attributes:
        reconstruction_gradient: Norm of the reconstruction terms' gradient at the last layer.
        adversarial_gradient: Norm of the unweighted adversarial term's.
        ratio: The former over the latter, before clamping.
        weight: Factor of the generator's term in this step.
        share: Of the adversarial term in the sum of the weighted norms.
    """

    reconstruction_gradient: Float[Tensor, ""]
    adversarial_gradient: Float[Tensor, ""]
    ratio: Float[Tensor, ""]
    weight: Float[Tensor, ""]
    share: Float[Tensor, ""]


@final
class AdversarialTraining(nn.Module):
    """Both losses of adversarial training, and the weight of the generator's.

    With ``adaptive`` the weight is multiplied by the ratio of two gradient norms at the decoder's
    last layer: that of the reconstruction terms over that of the adversarial term. So ``weight`` is
    the norm of the weighted adversarial gradient relative to the reconstruction gradient.

    The gradients are summed over all batches of a step and over all ranks before their norms are
    taken. So the ratio does not depend on how a step is split into batches and ranks, and is known
    at the last batch of the step, for which it is used.

    Args:
        loss: What the generator and the discriminator minimize.
        weight: Of the generator's term; its first step is also the discriminator's.
        adaptive: Whether the weight adapts to the gradients.
        max_ratio: Largest ratio, above 0. The gradient vanishes if the discriminator is nearly
            always right, and the ratio would rise by orders of magnitude.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Esser et al. 2021, arXiv:2012.09841, equations 6 and 7, and its code for the constants.
        Deviation: the ratio is over all batches and ranks of a step; ``max_ratio`` and the ramp are
        additions.
    """

    def __init__(
        self, *, loss: AdversarialLoss, weight: Weight, adaptive: bool, max_ratio: float
    ) -> None:
        super().__init__()
        require(max_ratio > 0, f"loss.{weight.name}.max_ratio must be above 0, got {max_ratio}")
        self.loss, self.weight = loss, weight
        self.adaptive, self.max_ratio = adaptive, max_ratio
        self._gradients: Tensor | None = None
        self._batches = 0

    def generator(self, fake: Sequence[Logits]) -> Float[Tensor, ""]:
        """Return the generator's unweighted loss."""
        return mean_over(self.loss.generator, fake)

    def discriminator(self, real: Sequence[Logits], fake: Sequence[Logits]) -> Float[Tensor, ""]:
        """Return the discriminator's loss."""
        return mean_over(self.loss.discriminator, real, fake)

    def observe(
        self, reconstruction: Float[Tensor, "*shape"], adversarial: Float[Tensor, "*shape"]
    ) -> None:
        """Add the last layer's gradients of one batch, of the unweighted terms."""
        both = torch.stack([at_least_float32(reconstruction), at_least_float32(adversarial)])
        self._gradients = both if self._gradients is None else self._gradients + both
        self._batches += 1

    def balance(self, step: int) -> Balance:
        """Compare the gradients of all batches of a step, after its last one; collective."""
        assert self._gradients is not None, "the step has had a batch"
        total = distributed.all_reduce_sum(self._gradients)
        mean = total / (self._batches * distributed.world_size())
        self._gradients, self._batches = None, 0
        reconstruction, adversarial = mean.flatten(1).norm(dim=1)
        ratio = reconstruction / (adversarial + EPSILON)
        weight = torch.full_like(ratio, self.weight.at(step))
        if self.adaptive:
            weight = weight * ratio.clamp(max=self.max_ratio)
        weighted = weight * adversarial
        return Balance(
            reconstruction_gradient=reconstruction,
            adversarial_gradient=adversarial,
            ratio=ratio,
            weight=weight,
            share=weighted / (reconstruction + weighted),
        )


def mean_over(
    loss: Callable[..., Float[Tensor, ""]], *logits: Sequence[Logits]
) -> Float[Tensor, ""]:
    """Average a loss over a discriminator's tensors of logits."""
    losses = [loss(*map(at_least_float32, each)) for each in zip(*logits, strict=True)]
    return torch.stack(losses).mean()
