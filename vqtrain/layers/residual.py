"""Residual blocks."""

from typing import Literal, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.block import Block
from vqtrain.layers.norm import group_norm

Shortcut = Literal["input", "output"]


@final
class BottleneckBlock(Block):
    """The residual block of the VQ-VAE: ReLU, 3x3 convolution, ReLU, 1x1 convolution.

    Args:
        channels: Channels in and out, at least 1.
        block_channels: Channels between the two convolutions, at least 1.

    References:
        van den Oord et al. 2017, arXiv:1711.00937, section 4.1.
    """

    def __init__(self, *, channels: int, block_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, block_channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(block_channels, channels, kernel_size=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add the output of the two convolutions to ``x``."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True))


@final
class ResidualBlock(Block):
    """The residual block of the VQGAN: twice group normalization, swish, 3x3 convolution.

    Args:
        in_channels: Channels in, at least 1.
        out_channels: Channels out, at least 1; a 1x1 convolution joins the two if they differ.
        dropout: Share of activations dropped before the second convolution, in [0, 1).
        bias: Whether the convolutions have biases.
        shortcut: What the 1x1 convolution is applied to: the ``input`` of the block, or, as in the
            MaskGIT code, the ``output`` of its second convolution. Such a block has no path around
            its convolutions.

    References:
        Esser et al. 2021, arXiv:2012.09841, table 7. The parameters are named as in its code.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        dropout: float = 0.0,
        bias: bool = True,
        shortcut: Shortcut = "input",
    ) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=bias)
        joined = in_channels if shortcut == "input" else out_channels
        self.nin_shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(joined, out_channels, kernel_size=1, bias=bias)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Add the output of the two convolutions to ``x``."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        from_output = self.shortcut == "output" and isinstance(self.nin_shortcut, nn.Conv2d)
        return self.nin_shortcut(h if from_output else x) + h
