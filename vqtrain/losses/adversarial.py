"""The adversarial game: what each side minimizes, and how it sets in."""

from collections.abc import Callable, Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain import distributed
from vqtrain.errors import ConfigError
from vqtrain.ops.precision import at_least_float32

Logits = Float[Tensor, "b 1 rows columns"]


def hinge_discriminator(real: Logits, fake: Logits) -> Float[Tensor, ""]:
    """Return (relu(1 - real) + relu(1 + fake)) / 2: nothing is won beyond a margin of 1."""
    return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2


def logistic_discriminator(real: Logits, fake: Logits) -> Float[Tensor, ""]:
    """Return half the binary cross-entropy of real as 1 and fake as 0."""
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def minus_mean(fake: Logits) -> Float[Tensor, ""]:
    """Return minus the mean logit, whose gradient is the same for every patch."""
    return -fake.mean()


def non_saturating(fake: Logits) -> Float[Tensor, ""]:
    """Return -log(sigmoid(fake)), whose gradient is largest where the generator is worst."""
    return F.softplus(-fake).mean()


# The generator of "vanilla" is that of the VQGAN's code.
GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": minus_mean,
    "vanilla": minus_mean,
    "non_saturating": non_saturating,
}
DISCRIMINATOR_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": hinge_discriminator,
    "vanilla": logistic_discriminator,
    "non_saturating": logistic_discriminator,
}

EPSILON = 1e-4  # of the paper's code: added to the adversarial norm


@final
class AdversarialLoss(nn.Module):
    """Both sides of the game, and what the generator's side weighs over the run.

    With ``adaptive`` the weight is multiplied by the ratio of two norms: of the gradients that the
    likeness terms (pixels and features) and the adversarial term have at the decoder's last layer.
    ``weight`` is then how hard the adversarial term pulls there for each unit of the others.

    The gradients are added up over all batches of a step and over all ranks before their norms are
    taken, and their ratio holds for the step that follows. So the weight is the same however a
    step is cut into batches and ranks, and nothing waits for another rank in mid-step. In the first
    step of the game the ratio is 0.

    Args:
        kind: ``hinge``, ``vanilla`` or ``non_saturating``.
        weight: Of the generator's term, at least 0.
        adaptive: Whether the weight follows the gradients.
        max_ratio: Largest ratio, above 0; where a discriminator is sure of itself its gradient
            vanishes, and the ratio would rise by orders of magnitude.
        start_step: Step at which the game begins, at least 0; before it the discriminator rests.
        ramp_steps: Steps over which the generator's term grows to its weight, at least 0.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Esser et al. 2021, arXiv:2012.09841, equations 6 and 7, and its code for the constants.
        Deviation: the ratio is that of the step before, over all ranks; ``max_ratio`` and the ramp
        are ours.
    """

    ratio: Tensor

    def __init__(
        self,
        *,
        kind: str,
        weight: float,
        adaptive: bool,
        max_ratio: float,
        start_step: int,
        ramp_steps: int,
    ) -> None:
        super().__init__()
        if kind not in GENERATOR_LOSSES:
            raise ConfigError(
                f"loss.adversarial.kind must be one of {', '.join(GENERATOR_LOSSES)}, got {kind!r}"
            )
        least_zero = {"weight": weight, "start_step": start_step, "ramp_steps": ramp_steps}
        for name, value in least_zero.items():
            if value < 0:
                raise ConfigError(f"loss.adversarial.{name} must be at least 0, got {value}")
        if max_ratio <= 0:
            raise ConfigError(f"loss.adversarial.max_ratio must be above 0, got {max_ratio}")
        self.kind, self.weight, self.adaptive = kind, weight, adaptive
        self.max_ratio, self.start_step, self.ramp_steps = max_ratio, start_step, ramp_steps
        self.register_buffer("ratio", torch.zeros(()))
        self._gradients: Tensor | None = None
        self._batches = 0

    def is_on(self, step: int) -> bool:
        """Say whether the game has begun at a step."""
        return step >= self.start_step

    def ramp(self, step: int) -> float:
        """Return the share of the weight that a step has, in [0, 1].

        Step i of the ramp has (i + 1) / ramp_steps, so its last one has 1, as in a warm-up.
        """
        if not self.is_on(step):
            return 0.0
        return min(1.0, (step - self.start_step + 1) / max(1, self.ramp_steps))

    def generator(self, fake: Logits) -> Float[Tensor, ""]:
        """Return what the generator minimizes, not weighted."""
        return GENERATOR_LOSSES[self.kind](at_least_float32(fake))

    def discriminator(self, real: Logits, fake: Logits) -> Float[Tensor, ""]:
        """Return what the discriminator minimizes."""
        return DISCRIMINATOR_LOSSES[self.kind](at_least_float32(real), at_least_float32(fake))

    def scale(self, step: int) -> Float[Tensor, ""]:
        """Return what the generator's term is multiplied by at a step."""
        scale = torch.full_like(self.ratio, self.weight * self.ramp(step))
        return scale * self.ratio if self.adaptive else scale

    def observe(
        self, likeness: Float[Tensor, "*shape"], adversarial: Float[Tensor, "*shape"]
    ) -> None:
        """Note the last layer's gradients in one batch, of the terms before they are weighted."""
        both = torch.stack([at_least_float32(likeness), at_least_float32(adversarial)])
        self._gradients = both if self._gradients is None else self._gradients + both
        self._batches += 1

    def forget(self) -> None:
        """Drop what was noted in a step that is not made."""
        self._gradients, self._batches = None, 0

    def update(self, step: int) -> Mapping[str, Float[Tensor, ""]]:
        """Close a step: set the ratio for the next one; collective.

        Returns:
            Scalars to log: the norms of both gradients, their ratio before it was clamped, the
            weight that this step had, and the share of the adversarial term in the sum of the
            norms as they were weighted.
        """
        assert self._gradients is not None, "the step has had a batch"
        total = distributed.all_reduce_sum(self._gradients)
        mean = total / (self._batches * distributed.world_size())
        self.forget()
        likeness, adversarial = mean.flatten(1).norm(dim=1)
        scale = self.scale(step)
        pull = scale * adversarial
        ratio = likeness / (adversarial + EPSILON)
        self.ratio.copy_(ratio.clamp(max=self.max_ratio))
        return {
            "likeness_gradient": likeness,
            "adversarial_gradient": adversarial,
            "ratio": ratio,
            "weight": scale,
            "share": pull / (likeness + pull),
        }
