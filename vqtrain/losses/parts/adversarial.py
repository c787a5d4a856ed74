"""Adversarial training: the losses of both sides, and the adaptive weight of the generator's."""

from collections.abc import Callable, Mapping, Sequence
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


@final
class AdversarialTraining(nn.Module):
    """Both losses of adversarial training, and the weight of the generator's.

    With ``adaptive`` the weight is multiplied by the ratio of two gradient norms at the decoder's
    last layer: that of the reconstruction terms over that of the adversarial term. So ``weight`` is
    the norm of the weighted adversarial gradient relative to the reconstruction gradient.

    The gradients are summed over all batches of a step and over all ranks before their norms are
    taken, and their ratio is used in the next step. So the weight does not depend on how a step is
    split into batches and ranks, and no rank waits for another within a step. In the first step of
    adversarial training the ratio is 0.

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
        Deviation: the ratio is that of the step before, over all ranks; ``max_ratio`` and the ramp
        are additions.
    """

    ratio: Tensor

    def __init__(
        self, *, loss: AdversarialLoss, weight: Weight, adaptive: bool, max_ratio: float
    ) -> None:
        super().__init__()
        require(max_ratio > 0, f"loss.{weight.name}.max_ratio must be above 0, got {max_ratio}")
        self.loss, self.weight = loss, weight
        self.adaptive, self.max_ratio = adaptive, max_ratio
        self.register_buffer("ratio", torch.zeros(()))
        self._gradients: Tensor | None = None
        self._batches = 0

    def generator(self, fake: Sequence[Logits]) -> Float[Tensor, ""]:
        """Return the generator's unweighted loss."""
        return mean_over(self.loss.generator, fake)

    def discriminator(self, real: Sequence[Logits], fake: Sequence[Logits]) -> Float[Tensor, ""]:
        """Return the discriminator's loss."""
        return mean_over(self.loss.discriminator, real, fake)

    def scale(self, step: int) -> Float[Tensor, ""]:
        """Return the factor of the generator's term at a step."""
        scale = torch.full_like(self.ratio, self.weight.at(step))
        return scale * self.ratio if self.adaptive else scale

    def observe(
        self, reconstruction: Float[Tensor, "*shape"], adversarial: Float[Tensor, "*shape"]
    ) -> None:
        """Add the last layer's gradients of one batch, of the unweighted terms."""
        both = torch.stack([at_least_float32(reconstruction), at_least_float32(adversarial)])
        self._gradients = both if self._gradients is None else self._gradients + both
        self._batches += 1

    def discard_step(self) -> None:
        """Drop the gradients of a skipped step."""
        self._gradients, self._batches = None, 0

    def update(self, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """End a step: set the ratio for the next one; collective.

        Returns:
            Scalars to log: the norms of both gradients, their ratio before clamping, the weight of
            this step, and the share of the adversarial term in the sum of the weighted norms.
        """
        assert self._gradients is not None, "the step has had a batch"
        total = distributed.all_reduce_sum(self._gradients)
        mean = total / (self._batches * distributed.world_size())
        self.discard_step()
        reconstruction, adversarial = mean.flatten(1).norm(dim=1)
        scale = self.scale(step)
        weighted = scale * adversarial
        ratio = reconstruction / (adversarial + EPSILON)
        self.ratio.copy_(ratio.clamp(max=self.max_ratio))
        return {
            "reconstruction_gradient": reconstruction,
            "adversarial_gradient": adversarial,
            "ratio": ratio,
            "weight": scale,
            "share": weighted / (reconstruction + weighted),
        }


def mean_over(
    loss: Callable[..., Float[Tensor, ""]], *logits: Sequence[Logits]
) -> Float[Tensor, ""]:
    """Average a loss over a discriminator's tensors of logits."""
    losses = [loss(*map(at_least_float32, each)) for each in zip(*logits, strict=True)]
    return torch.stack(losses).mean()
