"""What networks of residual blocks without attention share: the ways down and up."""

from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.norm import group_norm
from vqtrain.layers.residual import ResidualBlock

Block = Callable[[int, int], ResidualBlock]  # from the channels in and out
Resampling = Callable[[int], nn.Module]  # from the channels


@final
class Stage(nn.Module):
    """Residual blocks at one resolution, then the change to the next.

    Args:
        block: Builds a block.
        in_channels: Channels in.
        out_channels: Channels out.
        num_blocks: Blocks, at least 1.
        resampling: The change; ``nn.Identity()`` for none.
    """

    def __init__(
        self,
        block: Block,
        *,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        resampling: nn.Module,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [out_channels] * num_blocks
        self.block = nn.ModuleList(map(block, widths, widths[1:]))
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
        block: Builds a residual block.
        downsampling: Builds what halves the resolution.
        in_channels: Channels of the images.
        channels: Channels that the multipliers multiply.
        multipliers: Width of each stage; n stages downsample by 2**(n - 1).
        num_blocks: Residual blocks of each stage, and after them.
        latent_channels: Channels of the latents.
    """

    def __init__(
        self,
        block: Block,
        downsampling: Resampling,
        *,
        in_channels: int,
        channels: int,
        multipliers: list[int],
        num_blocks: int,
        latent_channels: int,
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in multipliers]
        self.conv_in = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.down = nn.ModuleList(
            Stage(
                block,
                in_channels=before,
                out_channels=width,
                num_blocks=num_blocks,
                resampling=downsampling(width) if level < len(widths) - 1 else nn.Identity(),
            )
            for level, (before, width) in enumerate(zip([channels, *widths], widths, strict=False))
        )
        self.mid = nn.ModuleList(block(widths[-1], widths[-1]) for _ in range(num_blocks))
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
        block: Builds a residual block.
        upsampling: Builds what doubles the resolution.
        out_channels: Channels of the images.
        channels: Channels that the multipliers multiply.
        multipliers: Width of each stage; n stages upsample by 2**(n - 1).
        num_blocks: Residual blocks of each stage, and before them.
        latent_channels: Channels of the latents.
        adaptive_norm: Whether the latents scale and shift the input of each stage.
    """

    def __init__(
        self,
        block: Block,
        upsampling: Resampling,
        *,
        out_channels: int,
        channels: int,
        multipliers: list[int],
        num_blocks: int,
        latent_channels: int,
        adaptive_norm: bool,
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in multipliers]
        inputs = [*widths[1:], widths[-1]]
        self.conv_in = nn.Conv2d(latent_channels, widths[-1], kernel_size=3, padding=1)
        self.mid = nn.ModuleList(block(widths[-1], widths[-1]) for _ in range(num_blocks))
        self.adaptive = nn.ModuleList(
            AdaptiveGroupNorm(width, latent_channels) for width in inputs if adaptive_norm
        )
        self.up = nn.ModuleList(
            Stage(
                block,
                in_channels=before,
                out_channels=width,
                num_blocks=num_blocks,
                resampling=upsampling(width) if level else nn.Identity(),
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
class AdaptiveGroupNorm(nn.Module):
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
