"""Parts of causal networks of clips: no frame depends on a later one, in no norm either."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import require
from vqtrain.layers.block import Block
from vqtrain.layers.causal import CausalConv, keep, recall
from vqtrain.layers.convolutional import Stages
from vqtrain.layers.norm import group_norm
from vqtrain.ranges import Range

KERNEL = (3, 3, 3)
POINT = (1, 1, 1)


class ClipStages(Stages):
    """Sizes that the ways down and up have; n stages make 2**(n - 1) rows and columns a latent.

    Attributes:
        time_strides: How much fewer frames each stage but the first has than the one before, 1 or 2
            each, one for each change of the resolution.
    """

    time_strides: Annotated[
        Sequence[int],
        Range("a list of 1 and 2", lambda strides: all(stride in (1, 2) for stride in strides)),
    ]


def checked_strides(stages: ClipStages) -> list[int]:
    """Return the strides in time.

    Raises:
        ConfigError: If there are not as many as changes of the resolution.
    """
    strides = list(stages["time_strides"])
    changes = len(stages["multipliers"]) - 1
    require(
        len(strides) == changes,
        f"time_strides must be one number less than multipliers, {changes}, got {strides}",
    )
    return strides


@final
class FrameNorm(nn.Module):
    """Group normalization of each frame by itself.

    Over all frames of a clip it would let each one see those that come later.

    Args:
        channels: Channels of the feature map.
        affine: Whether channels have a scale and a shift.
    """

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__()
        plain = group_norm(channels)
        self.norm = nn.GroupNorm(plain.num_groups, channels, eps=plain.eps, affine=affine)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Normalize the frames."""
        frames = self.norm(x.transpose(1, 2).flatten(0, 1))
        return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


@final
class CausalBlock(Block):
    """A residual block: twice norm, swish and a causal convolution.

    Args:
        in_channels: Channels in.
        out_channels: Channels out; a convolution of one position joins the two if they differ.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1 = FrameNorm(in_channels)
        self.conv1 = CausalConv(in_channels, out_channels, KERNEL, bias=False)
        self.norm2 = FrameNorm(out_channels)
        self.conv2 = CausalConv(out_channels, out_channels, KERNEL, bias=False)
        self.nin_shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else CausalConv(in_channels, out_channels, POINT, bias=False)
        )

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
        """Add the output of the two convolutions to ``x``."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


def causal_blocks(in_channels: int, out_channels: int, num_blocks: int) -> nn.Sequential:
    """Build residual blocks, the first of which changes the channels."""
    widths = pairwise([in_channels, *[out_channels] * num_blocks])
    return nn.Sequential(*(CausalBlock(before, after) for before, after in widths))


@final
class CausalDepthToSpace(Block):
    """Doubles rows and columns, and n frames to 2n - 1, by a convolution to channels that move.

    The first frame stays one, as it was on the way down; of the two that it would become, the first
    is kept.

    Args:
        channels: Channels in and out.
        time_stride: Frames of each frame, 1 or 2.
    """

    def __init__(self, channels: int, time_stride: int) -> None:
        super().__init__()
        self.time_stride = time_stride
        self.conv = CausalConv(channels, 4 * time_stride * channels, KERNEL)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t_out h_out w_out"]:
        """Convolve, then turn channels into frames, rows and columns."""
        h = rearrange(
            self.conv(x), "b (r p q c) t h w -> b c (t r) (h p) (w q)", r=self.time_stride, p=2, q=2
        )
        if self.time_stride == 1 or recall(self) is not None:
            return h
        keep(self, h.new_empty(0))  # later pieces begin with no first frame
        return torch.cat([h[:, :, :1], h[:, :, self.time_stride :]], dim=2)


@final
class FrameAdaptiveNorm(Block):
    """A norm of each frame, scaled and shifted by the statistics of the latents of that frame.

    Args:
        channels: Channels of the feature map.
        latent_channels: Channels of the latents.
        frames: Frames of each latent but the first, which has one.

    References:
        Luo et al. 2024, arXiv:2409.04410 (Open-MAGVIT2), with the unbiased variance of its code.
        Deviation: there statistics are of all frames of a clip, so that each frame sees later ones.
    """

    def __init__(self, channels: int, latent_channels: int, *, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.norm = FrameNorm(channels, affine=False)
        self.gamma = nn.Linear(latent_channels, channels)
        self.beta = nn.Linear(latent_channels, channels)

    def forward(
        self, x: Float[Tensor, "b c t h w"], latents: Float[Tensor, "b z n h_z w_z"]
    ) -> Float[Tensor, "b c t h w"]:
        """Normalize ``x``."""
        variance, mean = torch.var_mean(latents.transpose(1, 2).flatten(3), dim=-1)
        each = torch.stack([self.gamma((variance + 1e-6).sqrt()), self.beta(mean)])
        # Where the first latent is there, it has one frame, and the last of its copies stays.
        each = each.repeat_interleave(self.frames, dim=2)[:, :, -x.shape[2] :]
        scale, shift = rearrange(each, "two b t c -> two b c t 1 1")
        return self.norm(x) * scale + shift
