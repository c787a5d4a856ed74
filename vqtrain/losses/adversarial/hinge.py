"""The hinge loss."""

from typing import final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vqtrain.losses.adversarial.base import AdversarialLoss, Logits


@final
class Hinge(AdversarialLoss):
    """A hinge with a margin of 1 for the discriminator, minus the mean logit for the generator.

    References:
        Lim and Ye 2017, arXiv:1705.02894; Esser et al. 2021, arXiv:2012.09841, its code.
    """

    def generator(self, fake: Logits) -> Float[Tensor, ""]:
        """Return minus the mean logit, whose gradient is the same for every patch."""
        return -fake.mean()

    def discriminator(self, real: Logits, fake: Logits) -> Float[Tensor, ""]:
        """Return (relu(1 - real) + relu(1 + fake)) / 2."""
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
