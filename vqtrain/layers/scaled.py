"""The residual blocks of the DALL-E dVAE, and its convolutions."""

from collections.abc import Sequence
from itertools import pairwise
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.block import Block, Level


def convolution(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """Build a convolution that keeps the resolution, and the variance, as it begins.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Odd.
    """
    built = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    nn.init.normal_(built.weight, std=(in_channels * kernel_size**2) ** -0.5)
    assert built.bias is not None, "it has one, as none was declined"
    nn.init.zeros_(built.bias)
    return built


@final
class ScaledBlock(Block):
    """Adds the output of four convolutions, made small, to its input; without normalization.

    Args:
        in_channels: Channels in, at least 1.
        out_channels: Channels out, at least 4, of which the convolutions have a quarter between
            them; a 1x1 convolution joins the two if they differ.
        kernel_sizes: Of the four convolutions.
        gain: What their output is multiplied by.

    References:
        Ramesh et al. 2021, arXiv:2102.12092, appendix A.1, and its code.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int, kernel_sizes: Sequence[int], gain: float
    ) -> None:
        super().__init__()
        hidden = [out_channels // 4] * (len(kernel_sizes) - 1)
        widths = pairwise([in_channels, *hidden, out_channels])
        self.id_path = (
            nn.Identity()
            if in_channels == out_channels
            else convolution(in_channels, out_channels, 1)
        )
        self.res_path = nn.Sequential()
        for (before, after), kernel_size in zip(widths, kernel_sizes, strict=True):
            self.res_path.extend([nn.ReLU(), convolution(before, after, kernel_size)])
        self.gain = gain

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Add the output of the convolutions to ``x``."""
        return self.id_path(x) + self.gain * self.res_path(x)


@final
class ScaledGroup(nn.Sequential, Level):
    """Blocks of one resolution, and the change to the next, if there is one."""


def scaled_groups(
    widths: Sequence[int],
    *,
    in_channels: int,
    num_blocks: int,
    kernel_sizes: Sequence[int],
    resampling: nn.Module,
) -> nn.ModuleList:
    """Build groups of blocks, and a change of the resolution after each group but the last.

    Args:
        widths: Channels of each group, each at least 4.
        in_channels: Channels before the first one.
        num_blocks: Blocks in each group.
        kernel_sizes: Of the convolutions of a block.
        resampling: The change, which has no parameters.
    """
    gain = (len(widths) * num_blocks) ** -2  # less with each block, so that depth adds little
    groups = nn.ModuleList()
    for before, width in pairwise([in_channels, *widths]):
        blocks = [
            ScaledBlock(
                in_channels=width if number else before,
                out_channels=width,
                kernel_sizes=kernel_sizes,
                gain=gain,
            )
            for number in range(num_blocks)
        ]
        is_last = len(groups) == len(widths) - 1
        groups.append(ScaledGroup(*blocks, *([] if is_last else [resampling])))
    return groups
