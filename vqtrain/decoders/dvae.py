"""The decoder of the DALL-E dVAE."""

from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.resampling import Multipliers, factors
from vqtrain.layers.scaled import convolution, scaled_groups
from vqtrain.ranges import at_least, checked


@final
class DVAEDecoder(Decoder):
    """Residual blocks without normalization, whose outputs are scaled down, and upsampling.

    Its last convolution gives a location and the logarithm of a scale of each value's distribution.
    The locations are the images, and the scales are extra channels, which the loss
    ``logit_laplace`` wants.

    Args:
        out_channels: Channels of the images, at least 1.
        latent_channels: Channels of the latents, at least 1.
        channels: Channels that the multipliers multiply, at least 4.
        multipliers: Width of each group of blocks, from the full resolution, each at least 1; n
            groups upsample by 2**(n - 1).
        num_blocks: Residual blocks of each group, at least 1.

    Raises:
        ConfigError: If a size is too small.

    References:
        As of ``vqtrain.encoders.dvae``. Deviation: images are not clamped, so that gradients pass.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        latent_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(4)],
        multipliers: Multipliers,
        num_blocks: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        self.in_channels, self.extra_channels = latent_channels, out_channels
        widths = [channels * multiplier for multiplier in multipliers]
        self.upsampling = factors(multipliers)
        groups = scaled_groups(
            widths[::-1],
            in_channels=latent_channels,
            num_blocks=num_blocks,
            kernel_sizes=(1, 3, 3, 3),
            resampling=nn.Upsample(scale_factor=2),
        )
        last = convolution(widths[0], 2 * out_channels, 1)
        self.layers = nn.Sequential(*groups, nn.ReLU(), last)

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces locations and scales."""
        return self.layers[-1]

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images in [-1.25, 1.25], and logarithms of scales."""
        locations, log_scales = self.layers(z_q).chunk(2, dim=1)
        # Of pixels in [0.1, 0.9], as the encoder has them.
        return torch.cat([2.5 * torch.sigmoid(locations) - 1.25, log_scales], dim=1)
