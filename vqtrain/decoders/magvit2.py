"""The decoder of Open-MAGVIT2, and without its adaptive norm of SimVQ."""

import math
from collections.abc import Sequence
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.errors import require
from vqtrain.layers.convolutional import WayUp
from vqtrain.layers.level import check_levels
from vqtrain.layers.resampling import DepthToSpace
from vqtrain.layers.residual import ResidualBlock
from vqtrain.ranges import at_least, checked


@final
class MAGVIT2Decoder(Decoder):
    """Residual blocks without attention.

    Args:
        out_channels: Channels of the images, at least 1.
        channels: Channels that the multipliers multiply, at least 1.
        multipliers: Width of each stage, each at least 1; n stages upsample by 2**(n - 1).
        num_blocks: Residual blocks of each stage, and before the first, at least 1.
        latent_channels: Channels of the latents, at least 1.
        adaptive_norm: Whether the statistics of the latents scale and shift each stage.

    Raises:
        ConfigError: If a size is too small.

    References:
        Luo et al. 2024, arXiv:2409.04410; after Yu et al. 2023, arXiv:2310.05737 (MAGVIT-v2).
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(1)],
        multipliers: list[int],
        num_blocks: Annotated[int, at_least(1)],
        latent_channels: Annotated[int, at_least(1)],
        adaptive_norm: bool,
    ) -> None:
        super().__init__()
        check_levels(multipliers=multipliers, attention_factors=[])
        self.in_channels = latent_channels
        factor = 2 ** (len(multipliers) - 1)
        self.upsampling = (factor, factor)
        self.layers = WayUp(
            lambda before, after: ResidualBlock(in_channels=before, out_channels=after, bias=False),
            lambda width: DepthToSpace(channels=width),
            out_channels=out_channels,
            channels=channels,
            multipliers=multipliers,
            num_blocks=num_blocks,
            latent_channels=latent_channels,
            adaptive_norm=adaptive_norm,
        )

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the pixels."""
        return self.layers.conv_out

    def size(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the image that a grid of latents is decoded into."""
        alone = bool(self.layers.adaptive) and math.prod(grid) < 2
        require(not alone, "adaptive_norm needs at least two latents, got a grid of one")
        return super().size(grid)

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        return self.layers(z_q)
