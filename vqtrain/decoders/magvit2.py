"""The decoder of Open-MAGVIT2, and without its adaptive norm of SimVQ."""

import math
from collections.abc import Sequence
from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.errors import require
from vqtrain.layers.convolutional import Stages, WayUp
from vqtrain.layers.resampling import DepthToSpace, factors
from vqtrain.ranges import at_least, checked


@final
class MAGVIT2Decoder(Decoder):
    """Residual blocks without attention.

    Args:
        out_channels: Channels of the images, at least 1.
        adaptive_norm: Whether the statistics of the latents scale and shift each stage.
        **stages: See ``Stages``.

    Raises:
        ConfigError: If a size is too small.

    References:
        As of ``vqtrain.encoders.magvit2``.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        adaptive_norm: bool,
        **stages: Unpack[Stages],
    ) -> None:
        super().__init__()
        self.in_channels = stages["latent_channels"]
        self.upsampling = factors(stages["multipliers"])
        self.layers = WayUp(
            lambda width: DepthToSpace(channels=width),
            shortcut="input",
            out_channels=out_channels,
            adaptive_norm=adaptive_norm,
            **stages,
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
