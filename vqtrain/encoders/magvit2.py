"""The encoder of Open-MAGVIT2, and without its adaptive norm of SimVQ."""

from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.layers.convolutional import Stages, WayDown
from vqtrain.layers.resampling import factors
from vqtrain.ranges import at_least, checked


@final
class MAGVIT2Encoder(Encoder):
    """Residual blocks without attention.

    Args:
        in_channels: Channels of the images, at least 1.
        **stages: See ``Stages``.

    Raises:
        ConfigError: If a size is too small.

    References:
        Luo et al. 2024, arXiv:2409.04410; after Yu et al. 2023, arXiv:2310.05737 (MAGVIT-v2).
    """

    @checked
    def __init__(
        self, *, in_channels: Annotated[int, at_least(1)], **stages: Unpack[Stages]
    ) -> None:
        super().__init__()
        self.out_channels = stages["latent_channels"]
        self.downsampling = factors(stages["multipliers"])
        self.layers = WayDown(
            lambda width: nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1),
            shortcut="input",
            in_channels=in_channels,
            **stages,
        )

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]."""
        return self.layers(samples)
