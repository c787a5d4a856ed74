"""The decoder of Jukebox."""

from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.dilated import DilatedStages, dilated_up, hop
from vqtrain.ranges import at_least, checked


@final
class JukeboxDecoder(Decoder):
    """Residual blocks of falling dilation, each few followed by a transposed convolution.

    Args:
        out_channels: Channels of the sounds, at least 1.
        **stages: See ``DilatedStages``.

    Raises:
        ConfigError: If a size is too small.

    References:
        As of ``vqtrain.encoders.jukebox``.
    """

    @checked
    def __init__(
        self, *, out_channels: Annotated[int, at_least(1)], **stages: Unpack[DilatedStages]
    ) -> None:
        super().__init__()
        self.in_channels, self.upsampling = stages["latent_channels"], (hop(stages["strides"]),)
        self.layers = dilated_up(out_channels, stages)

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the samples."""
        return self.layers[-1]

    def forward(self, z_q: Float[Tensor, "b z t_z"]) -> Float[Tensor, "b c t"]:
        """Decode quantized latents into sounds, about in [-1, 1] but not clamped to it."""
        return self.layers(z_q)
