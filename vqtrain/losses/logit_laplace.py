"""The likelihood of pixels under a Laplace distribution of their logits."""

import math
from typing import final

from jaxtyping import Float
from torch import Tensor

from vqtrain.losses.base import LossTerm
from vqtrain.ops.precision import at_least_float32, without_autocast

# A logit beyond it is as good as infinite: sigmoid(14) is 1 - 8e-7.
EPS = 1e-6


@final
class LogitLaplace(LossTerm):
    """The mean negative logarithm of the density of values in (0, 1), with a scale for each.

    A value in [-1, 1] is mapped to ``x`` in [0.1, 0.9]. Its density is that of a Laplace
    distribution of ``logit(x)``: ``|logit(x) - mu| / b + ln(b) + ln(x (1 - x)) + ln(2)``. The
    reconstruction, mapped in the same way, is the sigmoid of ``mu``. The decoder predicts ``ln(b)``
    as an extra channel for each of the sample's, as ``dvae`` does. A reconstruction that is not in
    (-1.25, 1.25) gets no gradient; those of ``dvae`` always are.

    Args:
        in_channels: Channels of a sample.

    References:
        Ramesh et al. 2021, arXiv:2102.12092, appendix A.3.
    """

    def __init__(self, *, in_channels: int) -> None:
        super().__init__()
        self.extra_channels = in_channels

    def forward(
        self,
        reconstructions: Float[Tensor, "b c *size"],
        samples: Float[Tensor, "b c *size"],
        extra: Float[Tensor, "b c *size"] | None = None,
    ) -> Float[Tensor, ""]:
        """Compare element by element; ``extra`` are the logarithms of the scales."""
        assert extra is not None, "the objective gives a term the channels that it declares"
        with without_autocast(samples):
            x, predicted = (
                0.4 * at_least_float32(each) + 0.5 for each in (samples, reconstructions)
            )
            log_scales = at_least_float32(extra)
            distance = (x.logit() - predicted.logit(eps=EPS)).abs()
            jacobian = (x * (1 - x)).log()
            return (distance * (-log_scales).exp() + log_scales + jacobian).mean() + math.log(2)
