"""The decoder of MaskGIT, and of VQGAN+ and MaskBit."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.convolutional import WayUp
from vqtrain.layers.level import check_levels
from vqtrain.layers.resampling import Upsample
from vqtrain.layers.residual import ResidualBlock
from vqtrain.ranges import at_least, checked


@final
class MaskGITDecoder(Decoder):
    """Residual blocks without attention.

    Args:
        out_channels: Channels of the images, at least 1.
        channels: Channels that the multipliers multiply, at least 1.
        multipliers: Width of each stage, each at least 1; n stages upsample by 2**(n - 1).
        num_blocks: Residual blocks of each stage, and before the first, at least 1.
        latent_channels: Channels of the latents, at least 1.

    Raises:
        ConfigError: If a size is too small.

    References:
        Chang et al. 2022, arXiv:2202.04200; Weber et al. 2024, arXiv:2409.16211 (VQGAN+, MaskBit).
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
    ) -> None:
        super().__init__()
        check_levels(multipliers=multipliers, attention_factors=[])
        self.in_channels = latent_channels
        factor = 2 ** (len(multipliers) - 1)
        self.upsampling = (factor, factor)
        self.layers = WayUp(
            lambda before, after: ResidualBlock(
                in_channels=before, out_channels=after, bias=False, shortcut="output"
            ),
            lambda width: Upsample(channels=width),
            out_channels=out_channels,
            channels=channels,
            multipliers=multipliers,
            num_blocks=num_blocks,
            latent_channels=latent_channels,
            adaptive_norm=False,
        )

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the pixels."""
        return self.layers.conv_out

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        return self.layers(z_q)
