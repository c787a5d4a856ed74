"""The cross-entropy loss of the VQGAN's code."""

from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vqtrain.losses.adversarial.base import AdversarialLoss, Logits


@final
class Vanilla(AdversarialLoss):
    """Cross-entropy for the discriminator, minus the mean logit for the generator.

    References:
        Esser et al. 2021, arXiv:2012.09841, its code, which calls it "vanilla".
    """

    def generator(self, fake: Logits) -> Float[Tensor, ""]:
        """Return minus the mean logit, whose gradient is the same for every patch."""
        return -fake.mean()

    def discriminator(self, real: Logits, fake: Logits) -> Float[Tensor, ""]:
        """Return half the binary cross-entropy of real as 1 and fake as 0."""
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
