"""The encoder of Jukebox."""

from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.encoders.base import Encoder
from vqtrain.layers.dilated import DilatedStages, dilated_down, hop
from vqtrain.ranges import at_least, checked


@final
class JukeboxEncoder(Encoder):
    """Strided convolutions over time, each followed by residual blocks of growing dilation.

    Args:
        in_channels: Channels of the sounds, at least 1.
        **stages: See ``DilatedStages``.

    Raises:
        ConfigError: If a size is too small.

    References:
        Dhariwal et al. 2020, arXiv:2005.00341, section 3 and appendix B. Each of its three levels
        is an encoder of its own. Deviation: strides other than 2, and other activations, may be
        chosen.
    """

    @checked
    def __init__(
        self, *, in_channels: Annotated[int, at_least(1)], **stages: Unpack[DilatedStages]
    ) -> None:
        super().__init__()
        self.out_channels, self.downsampling = stages["latent_channels"], (hop(stages["strides"]),)
        self.layers = dilated_down(in_channels, stages)

    def forward(self, samples: Float[Tensor, "b c t"]) -> Float[Tensor, "b z t_z"]:
        """Encode sounds in [-1, 1]."""
        return self.layers(samples)
