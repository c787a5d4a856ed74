"""The mean squared error."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.elementwise import difference


@final
class L2(LossTerm):
    """The mean squared error over all elements of samples in [-1, 1]."""

    def forward(
        self, reconstructions: Float[Tensor, "b c *size"], samples: Float[Tensor, "b c *size"]
    ) -> Float[Tensor, ""]:
        """Compare element by element."""
        return difference(reconstructions, samples).square().mean()
