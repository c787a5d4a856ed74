"""The mean absolute and the mean squared error together."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.errors import ConfigError
from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.elementwise import difference
from vqtrain.ranges import FINITE, at_least, checked


@final
class Mix(LossTerm):
    """A weighted sum of the mean absolute and the mean squared error.

    Both are means over all elements of samples in [-1, 1].

    Args:
        l1: Share of the absolute error, at least 0.
        l2: Share of the squared error, at least 0; not 0 together with ``l1``.

    Raises:
        ConfigError: If a share is negative or not finite, or both are 0.
    """

    @checked
    def __init__(
        self,
        *,
        l1: Annotated[float, at_least(0), FINITE],
        l2: Annotated[float, at_least(0), FINITE],
    ) -> None:
        super().__init__()
        if l1 == l2 == 0.0:
            raise ConfigError("l1 and l2 must not both be 0")
        self.l1, self.l2 = l1, l2

    def forward(
        self, reconstructions: Float[Tensor, "b c *size"], samples: Float[Tensor, "b c *size"]
    ) -> Float[Tensor, ""]:
        """Compare element by element."""
        error = difference(reconstructions, samples)
        loss = error.new_zeros(())
        if self.l1 > 0.0:
            loss = loss + self.l1 * error.abs().mean()
        if self.l2 > 0.0:  # the square of a large error may be infinite, and 0 * inf is NaN
            loss = loss + self.l2 * error.square().mean()
        return loss
