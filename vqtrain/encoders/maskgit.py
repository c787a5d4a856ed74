"""The encoder of MaskGIT, and of VQGAN+ and MaskBit."""

from collections.abc import Sequence
from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.errors import require
from vqtrain.layers.convolutional import Stages, WayDown
from vqtrain.layers.resampling import Downsample, factors
from vqtrain.ranges import at_least, checked, one_of


@final
class MaskGITEncoder(Encoder):
    """Residual blocks without attention.

    Args:
        in_channels: Channels of the images, at least 1.
        downsampling: How the resolution is halved: ``pool`` averages 2 x 2 positions, as in
            MaskGIT; ``conv`` is a convolution of stride 2, as in VQGAN+ and MaskBit.
        input_range: Black and white inside. The published networks have [0, 1]; their first
            convolution pads with zeros, which are black there and gray in [-1, 1].
        **stages: See ``Stages``.

    Raises:
        ConfigError: If a size is too small, or the range is none.

    References:
        Chang et al. 2022, arXiv:2202.04200; Weber et al. 2024, arXiv:2409.16211 (VQGAN+, MaskBit).
    """

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        downsampling: Annotated[str, one_of("pool", "conv")],
        input_range: Sequence[float],
        **stages: Unpack[Stages],
    ) -> None:
        super().__init__()
        require(
            len(input_range) == 2 and input_range[0] < input_range[1],
            f"input_range must be two numbers, black and white, got {list(input_range)}",
        )
        self.black, self.white = input_range
        self.out_channels = stages["latent_channels"]
        self.downsampling = factors(stages["multipliers"])
        self.layers = WayDown(
            {
                "pool": lambda _: nn.AvgPool2d(2),
                "conv": lambda width: Downsample(channels=width),
            }[downsampling],
            shortcut="output",
            in_channels=in_channels,
            **stages,
        )

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]."""
        contrast, gray = (self.white - self.black) / 2, (self.white + self.black) / 2
        return self.layers(samples * contrast + gray)
