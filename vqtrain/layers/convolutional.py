"""What networks of residual blocks without attention share: the ways down and up."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, TypedDict, Unpack, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.block import Block, Level
from vqtrain.layers.norm import group_norm
from vqtrain.layers.resampling import Multipliers
from vqtrain.layers.residual import ResidualBlock, Shortcut
from vqtrain.ranges import at_least

Resampling = Callable[[int], nn.Module]  # from the channels


class Stages(TypedDict):
    """Sizes that both ways have.

    Attributes:
        channels: Channels that the multipliers multiply, at least 1.
        multipliers: Width of each stage, from the full resolution, each at least 1; n stages make
            2**(n - 1) px a latent.
        num_blocks: Residual blocks of each stage, at least 1.
        latent_channels: Channels of the latents, at least 1.
    """

    channels: Annotated[int, at_least(1)]
    multipliers: Multipliers
    num_blocks: Annotated[int, at_least(1)]
    latent_channels: Annotated[int, at_least(1)]


def build_blocks(widths: Sequence[int], shortcut: Shortcut) -> nn.ModuleList:
    """Build residual blocks with these channels before, between and after them."""
    return nn.ModuleList(
        ResidualBlock(in_channels=before, out_channels=after, bias=False, shortcut=shortcut)
        for before, after in pairwise(widths)
    )


def widths_of(stages: Stages) -> list[int]:
    """Return the channels of each stage."""
    return [stages["channels"] * multiplier for multiplier in stages["multipliers"]]


@final
class Stage(Level):
    """Residual blocks at one resolution, then the change to the next.

    Args:
        widths: Channels before the first block, and after each.
        resampling: The change; ``nn.Identity()`` for none.
        shortcut: Of the blocks, see ``ResidualBlock``.
    """

    def __init__(self, widths: Sequence[int], resampling: nn.Module, shortcut: Shortcut) -> None:
        super().__init__()
        self.block = build_blocks(widths, shortcut)
        self.resampling = resampling

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h_next w_next"]:
        """Apply the blocks in turn, then change the resolution."""
        for block in self.block:
            x = block(x)
        return self.resampling(x)


@final
class WayDown(nn.Module):
    """From images to latents: stages, each at half the resolution of the one before.

    Args:
        downsampling: Builds what halves the resolution.
        shortcut: Of the residual blocks, see ``ResidualBlock``.
        in_channels: Channels of the images.
        **stages: See ``Stages``; as many blocks follow the last one.
    """

    def __init__(
        self,
        downsampling: Resampling,
        *,
        shortcut: Shortcut,
        in_channels: int,
        **stages: Unpack[Stages],
    ) -> None:
        super().__init__()
        latent_channels, num_blocks = stages["latent_channels"], stages["num_blocks"]
        channels, widths = stages["channels"], widths_of(stages)
        self.conv_in = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.down = nn.ModuleList(
            Stage(
                [before] + [width] * num_blocks,
                nn.Identity() if level == len(widths) - 1 else downsampling(width),
                shortcut,
            )
            for level, (before, width) in enumerate(pairwise([channels, *widths]))
        )
        self.mid = build_blocks([widths[-1]] * (num_blocks + 1), shortcut)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], latent_channels, kernel_size=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Apply the stages in turn."""
        h = self.conv_in(x)
        for module in (*self.down, *self.mid):
            h = module(h)
        return self.conv_out(F.silu(self.norm_out(h)))


@final
class WayUp(nn.Module):
    """From latents to images: stages, each at twice the resolution of the one before.

    Stages are counted from the full resolution, as on the way down, so ``up.0`` comes last.

    Args:
        upsampling: Builds what doubles the resolution.
        shortcut: Of the residual blocks, see ``ResidualBlock``.
        out_channels: Channels of the images.
        adaptive_norm: Whether the latents scale and shift the input of each stage.
        **stages: See ``Stages``; as many blocks precede the first one.
    """

    def __init__(
        self,
        upsampling: Resampling,
        *,
        shortcut: Shortcut,
        out_channels: int,
        adaptive_norm: bool = False,
        **stages: Unpack[Stages],
    ) -> None:
        super().__init__()
        latent_channels, num_blocks = stages["latent_channels"], stages["num_blocks"]
        widths = widths_of(stages)
        inputs = [*widths[1:], widths[-1]]
        self.conv_in = nn.Conv2d(latent_channels, widths[-1], kernel_size=3, padding=1)
        self.mid = build_blocks([widths[-1]] * (num_blocks + 1), shortcut)
        self.adaptive = nn.ModuleList(
            AdaptiveGroupNorm(width, latent_channels) for width in inputs if adaptive_norm
        )
        self.up = nn.ModuleList(
            Stage(
                [before] + [width] * num_blocks,
                upsampling(width) if level else nn.Identity(),
                shortcut,
            )
            for level, (before, width) in enumerate(zip(inputs, widths, strict=True))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, kernel_size=3, padding=1)

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Apply the stages in turn."""
        h = self.conv_in(z_q)
        for block in self.mid:
            h = block(h)
        for level in reversed(range(len(self.up))):
            if self.adaptive:
                h = self.adaptive[level](h, z_q)
            h = self.up[level](h)
        return self.conv_out(F.silu(self.norm_out(h)))


@final
class AdaptiveGroupNorm(Block):
    """Group normalization, scaled and shifted by the statistics of the latents of an image.

    The scale is a linear map of their standard deviation over all positions, the shift one of their
    mean, so what it does to a tile of an image is not what it does to the whole.

    Args:
        channels: Channels of the feature map.
        latent_channels: Channels of the latents.

    References:
        Luo et al. 2024, arXiv:2409.04410 (Open-MAGVIT2). The variance is unbiased, as in its
        code, so that there must be two positions at least.
    """

    def __init__(self, channels: int, latent_channels: int) -> None:
        super().__init__()
        plain = group_norm(channels)
        self.norm = nn.GroupNorm(plain.num_groups, channels, eps=plain.eps, affine=False)
        self.gamma = nn.Linear(latent_channels, channels)
        self.beta = nn.Linear(latent_channels, channels)

    def forward(
        self, x: Float[Tensor, "b c h w"], latents: Float[Tensor, "b z h_z w_z"]
    ) -> Float[Tensor, "b c h w"]:
        """Normalize ``x``."""
        variance, mean = torch.var_mean(latents.flatten(2), dim=-1)
        scale, shift = self.gamma((variance + 1e-6).sqrt()), self.beta(mean)
        return self.norm(x) * scale[..., None, None] + shift[..., None, None]
