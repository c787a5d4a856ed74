"""The encoder of Open-MAGVIT2 for clips."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Unpack, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.errors import ConfigError
from vqtrain.layers.causal import CausalConv
from vqtrain.layers.causal_blocks import (
    KERNEL,
    POINT,
    ClipStages,
    FrameNorm,
    causal_blocks,
    checked_strides,
)
from vqtrain.layers.convolutional import widths_of
from vqtrain.ranges import at_least, checked
from vqtrain.shapes import by


@final
class MAGVIT2VideoEncoder(Encoder):
    """Residual blocks of causal 3D convolutions, for clips of 1 + k times the factor frames.

    The first latent sees the first frame alone, so that an image is a clip of one frame, and no
    latent sees a frame that comes after its own.

    Args:
        in_channels: Channels of the clips, at least 1.
        **stages: See ``ClipStages``.

    Raises:
        ConfigError: If a size is too small, or strides and stages do not fit each other.

    References:
        Luo et al. 2024, arXiv:2409.04410, and its code for UCF-101; after Yu et al. 2023,
        arXiv:2310.05737 (MAGVIT-v2). Deviation: each frame is normalized by itself. Their group
        norms are over all frames of a clip, so that the ids of an image are not those of the first
        frame of a clip.
    """

    causal = True

    @checked
    def __init__(
        self, *, in_channels: Annotated[int, at_least(1)], **stages: Unpack[ClipStages]
    ) -> None:
        super().__init__()
        z, channels, num_blocks = (
            stages[key] for key in ("latent_channels", "channels", "num_blocks")
        )
        strides, widths = checked_strides(stages), widths_of(stages)
        factor = 2 ** (len(widths) - 1)
        self.out_channels, self.downsampling = z, (math.prod(strides), factor, factor)
        self.conv_in = CausalConv(in_channels, channels, KERNEL, bias=False)
        self.down = nn.ModuleList(
            causal_blocks(before, width, num_blocks)
            for before, width in pairwise([channels, *widths])
        )
        self.downsample = nn.ModuleList(
            CausalConv(width, width, KERNEL, stride=(stride, 2, 2))
            for width, stride in zip(widths[:-1], strides, strict=True)
        )
        self.mid = causal_blocks(widths[-1], widths[-1], num_blocks)
        self.norm_out = FrameNorm(widths[-1])
        self.conv_out = CausalConv(widths[-1], z, POINT)

    def forward(self, samples: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b z t_z h_z w_z"]:
        """Encode clips in [-1, 1]."""
        h = self.conv_in(samples)
        for level, downsample in zip(self.down, [*self.downsample, nn.Identity()], strict=True):
            h = downsample(level(h))
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))

    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the grid of the latents of a clip: 1 + (frames - 1) / factor of them in time.

        Raises:
            ConfigError: If the encoder does not take that size; it names the nearest that fit.
        """
        factor = self.downsampling[0]
        if len(size) == 3 and (size[0] - 1) % factor:
            below = max(0, size[0] - 1) // factor * factor + 1
            raise ConfigError(
                f"a clip of {by(size)} has {size[0]} frames, and this encoder takes 1 + {factor} k "
                f"of them: {below} or {below + factor}"
            )
        frames, *sides = super().grid((size[0] - 1 + factor, *size[1:]))
        return (frames, *sides)

    def size(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the size of clips whose latents have a grid."""
        frames, *sides = super().size(grid)
        return (frames - self.downsampling[0] + 1, *sides)
