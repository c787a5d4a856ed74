"""The contract every discriminator keeps."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Discriminator(nn.Module, ABC):
    """Tells reconstructions from samples, patch by patch.

    It is always in training mode, and samples and reconstructions come in separate batches.

    Attributes:
        least_batch_size: Samples that a batch must hold at least.
    """

    least_batch_size: int = 1

    @abstractmethod
    def forward(self, samples: Float[Tensor, "b c *size"]) -> list[Float[Tensor, "b 1 ..."]]:
        """Return logits: positive where it takes samples in [-1, 1] for real.

        Each tensor is one scale or head; losses average over all of them. Samples that are too
        small raise RuntimeError, ValueError or ConfigError.
        """
