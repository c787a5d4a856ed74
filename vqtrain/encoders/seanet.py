"""The encoder of SEANet, as in EnCodec and, with other sizes, in DAC."""

import math
from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.encoders.base import Encoder
from vqtrain.layers.seanet import LATENTS_AT_ONCE, SEANet, seanet_down, streams
from vqtrain.ranges import at_least, checked


@final
class SEANetEncoder(Encoder):
    """Residual blocks of convolutions over time, strided convolutions and an LSTM.

    Args:
        in_channels: Channels of the sounds, at least 1.
        **sizes: See ``SEANet``.

    Raises:
        ConfigError: If a size is too small or no word of its argument.

    References:
        Tagliasacchi et al. 2020, arXiv:2009.02095 (SEANet); Defossez et al. 2022, arXiv:2210.13438,
        section 3.1 (EnCodec); Kumar et al. 2023, arXiv:2306.06546 (DAC). Deviation: lengths that
        the strides do not divide are refused, where EnCodec pads at the end; and where there is
        too little to reflect, zeros follow on both sides.
    """

    @checked
    def __init__(
        self, *, in_channels: Annotated[int, at_least(1)], **sizes: Unpack[SEANet]
    ) -> None:
        super().__init__()
        self.out_channels = sizes["latent_channels"]
        self.downsampling = (math.prod(sizes["strides"]),)
        self.causal, self.latents_at_once = streams(sizes), LATENTS_AT_ONCE
        self.layers = seanet_down(in_channels, sizes)

    def forward(self, samples: Float[Tensor, "b c t"]) -> Float[Tensor, "b z t_z"]:
        """Encode sounds in [-1, 1]."""
        return self.layers(samples)
