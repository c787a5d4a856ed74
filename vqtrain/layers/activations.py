"""Activations of convolutional networks, by a word."""

from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.ranges import one_of

ACTIVATIONS = ("relu", "elu", "snake")
Activation = Annotated[str, one_of(*ACTIVATIONS)]


@final
class Snake(nn.Module):
    """x + sin^2(a x) / a with a learned a for each channel, which suits periodic signals.

    Args:
        channels: Channels of the feature map, at least 1.

    References:
        Ziyin et al. 2020, arXiv:2006.08195; with 1e-9 added to the a that divides, and a = 1 at the
        start, as in Kumar et al. 2023, arXiv:2306.06546 (DAC).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
        """Apply it to each value."""
        alpha = self.alpha.reshape(-1, *[1] * (x.ndim - 2))
        return x + (alpha * x).sin().square() / (alpha + 1e-9)


def build_activation(word: str, channels: int) -> nn.Module:
    """Build one of ``ACTIVATIONS`` for a feature map with so many channels."""
    if word == "snake":
        return Snake(channels)
    return {"relu": nn.ReLU, "elu": nn.ELU}[word]()
