"""Halving and doubling the resolution of a feature map."""

from typing import Annotated, final

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.block import Block
from vqtrain.ranges import Range

# The width of each stage of a network over that of the first; between stages the resolution is
# halved or doubled.
Multipliers = Annotated[
    list[int],
    Range(
        "a list of at least one number, each at least 1",
        lambda multipliers: len(multipliers) > 0 and min(multipliers) >= 1,
    ),
]


def factors(multipliers: Multipliers) -> tuple[int, int]:
    """Return the pixels per latent along both axes: n stages change the resolution n - 1 times."""
    factor = 2 ** (len(multipliers) - 1)
    return factor, factor


@final
class Downsample(Block):
    """Halves the resolution by a 3x3 convolution of stride 2.

    Args:
        channels: Channels in and out, at least 1.

    References:
        Esser et al. 2021, arXiv:2012.09841: one column of zeros on the right, one row below.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h_half w_half"]:
        """Pad on the right and below only, then convolve."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


@final
class Upsample(Block):
    """Doubles the resolution by repeating pixels, then applies a 3x3 convolution.

    Args:
        channels: Channels in and out, at least 1.

    References:
        Esser et al. 2021, arXiv:2012.09841.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h_double w_double"]:
        """Repeat every pixel twice along both axes, then convolve."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


@final
class DepthToSpace(Block):
    """Doubles the resolution by a 3x3 convolution to four times the channels, which become pixels.

    Args:
        channels: Channels in and out, at least 1.

    References:
        Luo et al. 2024, arXiv:2409.04410 (Open-MAGVIT2). The place in the block of 2x2 pixels is
        the slowest index of the channels, unlike in ``nn.PixelShuffle``, where it is the fastest.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, kernel_size=3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h_double w_double"]:
        """Convolve, then turn channels into pixels."""
        return rearrange(self.conv(x), "b (p q c) h w -> b c (h p) (w q)", p=2, q=2)
