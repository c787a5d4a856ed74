"""The decoder of MaskGIT, and of VQGAN+ and MaskBit."""

from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.convolutional import Stages, WayUp
from vqtrain.layers.resampling import Upsample, factors
from vqtrain.ranges import at_least, checked


@final
class MaskGITDecoder(Decoder):
    """Residual blocks without attention.

    Args:
        out_channels: Channels of the images, at least 1.
        **stages: See ``Stages``.

    Raises:
        ConfigError: If a size is too small.

    References:
        As of ``vqtrain.encoders.maskgit``.
    """

    @checked
    def __init__(
        self, *, out_channels: Annotated[int, at_least(1)], **stages: Unpack[Stages]
    ) -> None:
        super().__init__()
        self.in_channels = stages["latent_channels"]
        self.upsampling = factors(stages["multipliers"])
        self.layers = WayUp(
            lambda width: Upsample(channels=width),
            shortcut="output",
            out_channels=out_channels,
            **stages,
        )

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the pixels."""
        return self.layers.conv_out

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        return self.layers(z_q)
