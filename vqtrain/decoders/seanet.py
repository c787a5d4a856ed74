"""The decoder of SEANet, as in EnCodec and, with other sizes, in DAC."""

import math
from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.seanet import LATENTS_AT_ONCE, SEANet, seanet_up, streams
from vqtrain.ranges import at_least, checked, one_of


@final
class SEANetDecoder(Decoder):
    """An LSTM, transposed convolutions and residual blocks of convolutions over time.

    Args:
        out_channels: Channels of the sounds, at least 1.
        output: What the last convolution is followed by: nothing (``linear``), or ``tanh``.
        **sizes: See ``SEANet``.

    Raises:
        ConfigError: If a size is too small or no word of its argument.

    References:
        As of ``vqtrain.encoders.seanet``, with the same deviation.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        output: Annotated[str, one_of("linear", "tanh")],
        **sizes: Unpack[SEANet],
    ) -> None:
        super().__init__()
        self.in_channels = sizes["latent_channels"]
        self.upsampling = (math.prod(sizes["strides"]),)
        self.causal, self.latents_at_once = streams(sizes), LATENTS_AT_ONCE
        self.layers = seanet_up(out_channels, sizes)
        self.output = nn.Tanh() if output == "tanh" else nn.Identity()

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the samples."""
        last = self.layers[-1].conv
        assert isinstance(last, nn.Module), "each convolution has one inside"
        return last

    def forward(self, z_q: Float[Tensor, "b z t_z"]) -> Float[Tensor, "b c t"]:
        """Decode quantized latents into sounds, about in [-1, 1] but not clamped to it."""
        return self.output(self.layers(z_q))
