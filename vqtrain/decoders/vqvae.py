"""The decoder of the VQ-VAE."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.strided import strided_up
from vqtrain.ranges import at_least, checked


@final
class VQVAEDecoder(Decoder):
    """A few residual blocks, then transposed convolutions: the mirror of the VQ-VAE encoder.

    Args:
        out_channels: Channels of the images, at least 1.
        channels: Channels of the latents, at least 2; half as many after the last but one
            transposed convolution.
        block_channels: Channels inside the residual blocks, at least 1.
        num_blocks: Residual blocks, at least 0.
        num_upsamplings: Transposed convolutions of stride 2, at least 1.

    Raises:
        ConfigError: If a size is too small.

    References:
        As of ``vqtrain.encoders.vqvae``, with the same deviation.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(2)],
        block_channels: Annotated[int, at_least(1)],
        num_blocks: Annotated[int, at_least(0)],
        num_upsamplings: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        self.in_channels = channels
        self.upsampling = (2**num_upsamplings, 2**num_upsamplings)
        self.layers = strided_up(
            in_channels=channels,
            out_channels=out_channels,
            channels=channels,
            block_channels=block_channels,
            num_blocks=num_blocks,
            num_upsamplings=num_upsamplings,
        )

    @property
    def last_layer(self) -> nn.Module:
        """The last transposed convolution."""
        return self.layers[-1]

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        return self.layers(z_q)
