"""The mean absolute error."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.elementwise import difference


@final
class L1(LossTerm):
    """The mean absolute error over all elements of samples in [-1, 1]."""

    def forward(
        self, reconstructions: Float[Tensor, "b c *size"], samples: Float[Tensor, "b c *size"]
    ) -> Float[Tensor, ""]:
        """Compare element by element."""
        return difference(reconstructions, samples).abs().mean()
