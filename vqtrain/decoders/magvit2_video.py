"""The decoder of Open-MAGVIT2 for clips."""

import math
from collections.abc import Sequence
from typing import Annotated, Unpack, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.causal import CausalConv
from vqtrain.layers.causal_blocks import (
    KERNEL,
    CausalDepthToSpace,
    ClipStages,
    FrameAdaptiveNorm,
    FrameNorm,
    causal_blocks,
    checked_strides,
)
from vqtrain.layers.convolutional import widths_of
from vqtrain.ranges import at_least, checked


@final
class MAGVIT2VideoDecoder(Decoder):
    """Residual blocks of causal 3D convolutions, for clips of 1 + k times the factor frames.

    No frame depends on a latent that comes after its own. Stages are counted from the full
    resolution, as in the encoder.

    Args:
        out_channels: Channels of the clips, at least 1.
        **stages: See ``ClipStages``.

    Raises:
        ConfigError: If a size is too small, or strides and stages do not fit each other.

    References:
        As of ``vqtrain.encoders.magvit2_video``, with the same deviation, in the adaptive norm too.
        The variance in it needs latents of two rows or columns.
    """

    causal = True

    @checked
    def __init__(
        self, *, out_channels: Annotated[int, at_least(1)], **stages: Unpack[ClipStages]
    ) -> None:
        super().__init__()
        z, num_blocks, widths = stages["latent_channels"], stages["num_blocks"], widths_of(stages)
        strides = checked_strides(stages)
        factor = 2 ** (len(widths) - 1)
        self.in_channels, self.upsampling = z, (math.prod(strides), factor, factor)
        inputs = [*widths[1:], widths[-1]]
        frames = [math.prod(strides[level:]) for level in range(len(widths))]
        self.conv_in = CausalConv(z, widths[-1], KERNEL)
        self.mid = causal_blocks(widths[-1], widths[-1], num_blocks)
        self.adaptive = nn.ModuleList(
            FrameAdaptiveNorm(width, z, frames=count)
            for width, count in zip(inputs, frames, strict=True)
        )
        self.up = nn.ModuleList(
            causal_blocks(before, width, num_blocks)
            for before, width in zip(inputs, widths, strict=True)
        )
        self.upsample = nn.ModuleList(
            CausalDepthToSpace(width, stride)
            for width, stride in zip(widths[1:], strides, strict=True)
        )
        self.norm_out = FrameNorm(widths[0])
        self.conv_out = CausalConv(widths[0], out_channels, KERNEL)

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the pixels."""
        return self.conv_out.conv

    def forward(self, z_q: Float[Tensor, "b z t_z h_z w_z"]) -> Float[Tensor, "b c t h w"]:
        """Decode quantized latents into clips, about in [-1, 1] but not clamped to it."""
        h = self.mid(self.conv_in(z_q))
        for level in reversed(range(len(self.up))):
            h = self.up[level](self.adaptive[level](h, z_q))
            if level:
                h = self.upsample[level - 1](h)
        return self.conv_out(F.silu(self.norm_out(h)))

    def size(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the clip that a grid of latents is decoded into.

        Raises:
            ConfigError: If the grid is not one of three axes.
        """
        frames, *sides = super().size(grid)
        return (frames - self.upsampling[0] + 1, *sides)
