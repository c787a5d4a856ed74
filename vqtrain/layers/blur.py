"""Low-pass filtering of feature maps before their resolution is reduced."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@final
class Blur(nn.Module):
    """Filters every channel by (1, 3, 3, 1) / 8 along both axes, with zeros around the map.

    A side of n becomes (n + 2 padding - 4) // stride + 1.

    Args:
        stride: Of the positions that are kept, at least 1.
        padding: Zeros on each side, at least 0.

    References:
        Zhang 2019, arXiv:1904.11486; Karras et al. 2020, arXiv:1912.04958, for this filter.
    """

    kernel: Tensor

    def __init__(self, *, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", taps.outer(taps), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c rows columns"]:
        """Filter each channel."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=channels)
