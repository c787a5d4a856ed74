"""The contract of every adversarial loss."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

Logits = Float[Tensor, "b 1 ..."]


class AdversarialLoss(nn.Module, ABC):
    """What the generator and the discriminator minimize, for one tensor of logits.

    Logits are at least float32, and positive for real samples. If a discriminator returns several
    tensors, the loss is their mean.
    """

    @abstractmethod
    def generator(self, fake: Logits) -> Float[Tensor, ""]:
        """Return the generator's unweighted loss for the logits of reconstructions."""

    @abstractmethod
    def discriminator(self, real: Logits, fake: Logits) -> Float[Tensor, ""]:
        """Return the discriminator's loss for the logits of samples and of reconstructions."""
