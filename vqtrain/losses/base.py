"""The contract of every loss term."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class LossTerm(nn.Module, ABC):
    """Compares reconstructions with their samples.

    A term of the objective has a name, a weight, a first step and a ramp besides, which are keys of
    ``loss.<name>`` in the configuration (see ``vqtrain.losses.parts.weighted``), so a kind holds
    its formula alone. Its parameters are not trained.
    """

    @abstractmethod
    def forward(
        self, reconstructions: Float[Tensor, "b c *size"], samples: Float[Tensor, "b c *size"]
    ) -> Float[Tensor, ""]:
        """Return the loss of one batch, a mean over its samples, not weighted.

        Args:
            reconstructions: In at least float32; gradients go to them alone.
            samples: In [-1, 1].

        Returns:
            A scalar of at least float32.
        """
