"""Convolutions over time whose weights are a direction and a length for each channel."""

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@final
class WeightNorm(nn.Module):
    """A convolution with the weight gain * v / |v|, where |v| is that of each slice of axis 0.

    These are the outputs of a convolution, and the inputs of a transposed one. Its ``weight`` is v,
    a parameter, where torch's own parametrization computes another tensor at each access, for which
    no gradient is known.

    Args:
        conv: The convolution, whose weight at the start this leaves as it is.

    References:
        Salimans and Kingma 2016, arXiv:1602.07868, with the axis of ``torch.nn.utils.weight_norm``.
    """

    def __init__(self, conv: nn.Conv1d | nn.ConvTranspose1d) -> None:
        super().__init__()
        self.conv = conv
        self.gain = nn.Parameter(conv.weight.detach().norm(dim=(1, 2), keepdim=True))

    @property
    def weight(self) -> Tensor:
        """The direction v."""
        return self.conv.weight

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b d t_out"]:
        """Convolve."""
        conv = self.conv
        weight = conv.weight * (self.gain / conv.weight.norm(dim=(1, 2), keepdim=True))
        if isinstance(conv, nn.ConvTranspose1d):
            return F.conv_transpose1d(x, weight, conv.bias, conv.stride)
        return F.conv1d(x, weight, conv.bias, conv.stride, dilation=conv.dilation)
