"""No encoder at all: samples are the latents."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.encoders.base import Encoder
from vqtrain.ranges import at_least, checked


@final
class IdentityEncoder(Encoder):
    """Passes samples on as they are, so that a codebook is trained on stored latents.

    It has no parameters: the projection to the codebook is what comes before it.

    Args:
        in_channels: Channels of the samples, at least 1.

    Raises:
        ConfigError: If there is no channel.
    """

    @checked
    def __init__(self, *, in_channels: Annotated[int, at_least(1)]) -> None:
        super().__init__()
        self.out_channels, self.downsampling = in_channels, (1, 1)

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the samples."""
        return samples
