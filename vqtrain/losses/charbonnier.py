"""A smooth absolute error."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.elementwise import difference
from vqtrain.ranges import FINITE, above, checked


@final
class Charbonnier(LossTerm):
    """The mean of ``sqrt(d^2 + eps^2)`` over all elements of samples in [-1, 1].

    It is about the absolute error for ``d`` far above ``eps``, and about a squared one below it.

    Args:
        eps: What the error of equal samples is, above 0.

    Raises:
        ConfigError: If it is not.

    References:
        Charbonnier et al. 1994, Two deterministic half-quadratic regularization algorithms for
        computed imaging; Lai et al. 2017, arXiv:1704.03915.
    """

    @checked
    def __init__(self, *, eps: Annotated[float, above(0), FINITE]) -> None:
        super().__init__()
        self.eps = eps

    def forward(
        self, reconstructions: Float[Tensor, "b c *size"], samples: Float[Tensor, "b c *size"]
    ) -> Float[Tensor, ""]:
        """Compare element by element."""
        error = difference(reconstructions, samples)
        return (error.square() + self.eps**2).sqrt().mean()
