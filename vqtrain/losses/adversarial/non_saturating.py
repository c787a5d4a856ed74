"""The non-saturating loss."""

from collections.abc import Callable
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vqtrain.losses.adversarial.base import AdversarialLoss, Logits
from vqtrain.ranges import checked, one_of

# Of the discriminator, by their word.
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross_entropy": F.softplus,
    "hinge": lambda logits: F.relu(1 + logits),
}


@final
class NonSaturating(AdversarialLoss):
    """Cross-entropy for the generator, and cross-entropy or a hinge for the discriminator.

    Args:
        discriminator_loss: ``cross_entropy``, or ``hinge`` with a margin of 1.
        image_means: Whether the generator's loss is of each sample's mean logit, rather than of
            each of its logits.

    Raises:
        ConfigError: If there is no such loss.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661, section 3; Luo et al. 2024, arXiv:2409.04410
        (Open-MAGVIT2), its code, for the other choices.
    """

    @checked
    def __init__(
        self, *, discriminator_loss: Annotated[str, one_of(*LOSSES)], image_means: bool
    ) -> None:
        super().__init__()
        self.own, self.image_means = LOSSES[discriminator_loss], image_means

    def generator(self, fake: Logits) -> Float[Tensor, ""]:
        """Return -log(sigmoid(fake)), whose gradient is largest where the generator is worst."""
        if self.image_means:
            fake = fake.flatten(1).mean(1)
        return F.softplus(-fake).mean()

    def discriminator(self, real: Logits, fake: Logits) -> Float[Tensor, ""]:
        """Return half the sum of the losses of real as true and fake as false."""
        return (self.own(-real).mean() + self.own(fake).mean()) / 2
