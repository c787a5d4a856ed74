"""Parts of VideoGPT's networks: strided 3D convolutions, and attention along the axes of a clip."""

from collections.abc import Sequence
from itertools import chain
from typing import Annotated, TypedDict, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.block import Block
from vqtrain.layers.norm import BatchNorm
from vqtrain.ranges import Range, at_least

HEADS = 2
# Tokens of (frames, height, width) px that networks of strides of 2 can make.
Factors = Annotated[
    Sequence[int],
    Range(
        "three powers of 2, of frames, rows and columns, and not all 1",
        lambda factors: (
            len(factors) == 3
            and max(factors) > 1
            and all(n >= 1 and n & (n - 1) == 0 for n in factors)
        ),
    ),
]


class AxialSizes(TypedDict):
    """Sizes that both networks have.

    Attributes:
        channels: Width, an even number; half as many inside the residual blocks.
        num_blocks: Residual blocks, at least 0.
    """

    channels: Annotated[int, Range("an even number, at least 2", lambda n: n > 0 and n % 2 == 0)]
    num_blocks: Annotated[int, at_least(0)]


def strides(factors: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the strides of successive convolutions, none above 2, the most halving ones first.

    Example:
        >>> strides((4, 2, 1))
        [(2, 2, 1), (2, 1, 1)]
    """
    steps = max(factors).bit_length() - 1
    return [tuple(2 if factor >> step > 1 else 1 for factor in factors) for step in range(steps)]


def padding(kernel_size: int, stride: Sequence[int]) -> list[int]:
    """Return what keeps n / stride outputs of n inputs, in the order of ``F.pad``, larger first."""
    totals = [kernel_size - step for step in reversed(stride)]
    return list(chain.from_iterable((total - total // 2, total // 2) for total in totals))


@final
class SameConv(nn.Module):
    """A 3D convolution of a clip whose axes its strides divide, and of n / stride outputs.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Along each axis.
        stride: Along each axis.
        bias: Whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: Sequence[int] = (1, 1, 1),
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.padding = padding(kernel_size, stride)
        self.conv = nn.Conv3d(
            in_channels,
            out_channels,
            kernel_size,
            stride=tuple(stride),  # type: ignore[arg-type]  # three, as there are axes
            bias=bias,
        )

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t_out h_out w_out"]:
        """Pad and convolve."""
        return self.conv(F.pad(x, self.padding))


@final
class SameTransposedConv(nn.Module):
    """A transposed 3D convolution of n stride outputs, padded as its mirror is.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Along each axis.
        stride: Along each axis.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: Sequence[int]
    ) -> None:
        super().__init__()
        self.padding = padding(kernel_size, stride)
        self.convt = nn.ConvTranspose3d(
            in_channels,
            out_channels,
            kernel_size,
            stride=tuple(stride),  # type: ignore[arg-type]  # three, as there are axes
            padding=kernel_size - 1,
        )

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t_out h_out w_out"]:
        """Pad and convolve."""
        return self.convt(F.pad(x, self.padding))


@final
class LineAttention(Block):
    """Self-attention of several heads within each line along one axis of a clip.

    Args:
        channels: Channels in and out.
        axis: Of the clip, 0 for frames, 1 for rows, 2 for columns.
    """

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.w_qs, self.w_ks, self.w_vs = (
            nn.Linear(channels, channels, bias=False) for _ in range(3)
        )
        self.fc = nn.Linear(channels, channels)
        for layer in (self.w_qs, self.w_ks, self.w_vs, self.fc):
            nn.init.normal_(layer.weight, std=channels**-0.5)

    def forward(self, x: Float[Tensor, "b t h w c"]) -> Float[Tensor, "b t h w c"]:
        """Let each position see those that differ from it along the axis alone."""
        lines = x.transpose(1 + self.axis, 3)
        q, k, v = (
            rearrange(project(lines), "b i j n (m d) -> (b i j) m n d", m=HEADS)
            for project in (self.w_qs, self.w_ks, self.w_vs)
        )
        gathered = F.scaled_dot_product_attention(q, k, v)
        gathered = rearrange(gathered, "l m n d -> l n (m d)").reshape(lines.shape)
        return self.fc(gathered).transpose(1 + self.axis, 3)


@final
class AxialBlock(nn.Module):
    """A residual block of two convolutions and the sum of attention along each axis.

    It is no ``Block``, as its batch norms change their statistics; its attention is.

    Args:
        channels: Channels in and out, an even number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Sequential(
            BatchNorm(channels),
            nn.ReLU(),
            SameConv(channels, channels // 2, 3, bias=False),
            BatchNorm(channels // 2),
            nn.ReLU(),
            SameConv(channels // 2, channels, 1, bias=False),
            BatchNorm(channels),
            nn.ReLU(),
        )
        self.attention = nn.ModuleList(LineAttention(channels, axis) for axis in range(3))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Add what the block makes of it to ``x``."""
        h = rearrange(self.before(x), "b c t h w -> b t h w c")
        total = torch.stack([attention(h) for attention in self.attention]).sum(0)
        return x + rearrange(total, "b t h w c -> b c t h w")


def axial_blocks(channels: int, num_blocks: int) -> nn.Sequential:
    """Build residual blocks, and the norm and the activation after them."""
    return nn.Sequential(
        *(AxialBlock(channels) for _ in range(num_blocks)), BatchNorm(channels), nn.ReLU()
    )
