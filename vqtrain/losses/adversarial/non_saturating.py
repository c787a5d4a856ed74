"""The non-saturating loss."""

from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vqtrain.losses.adversarial.base import AdversarialLoss, Logits


@final
class NonSaturating(AdversarialLoss):
    """Cross-entropy for the generator and the discriminator.

    References:
        Goodfellow et al. 2014, arXiv:1406.2661, section 3.
    """

    def generator(self, fake: Logits) -> Float[Tensor, ""]:
        """Return -log(sigmoid(fake)), whose gradient is largest where the generator is worst."""
        return F.softplus(-fake).mean()

    def discriminator(self, real: Logits, fake: Logits) -> Float[Tensor, ""]:
        """Return half the binary cross-entropy of real as 1 and fake as 0."""
        return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
