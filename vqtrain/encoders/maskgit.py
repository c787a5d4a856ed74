"""The encoder of MaskGIT, and of VQGAN+ and MaskBit."""

from collections.abc import Sequence
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.errors import require
from vqtrain.layers.convolutional import WayDown
from vqtrain.layers.level import check_levels
from vqtrain.layers.resampling import Downsample
from vqtrain.layers.residual import ResidualBlock
from vqtrain.ranges import at_least, checked, one_of


@final
class MaskGITEncoder(Encoder):
    """Residual blocks without attention.

    Args:
        in_channels: Channels of the images, at least 1.
        channels: Channels that the multipliers multiply, at least 1.
        multipliers: Width of each stage, each at least 1; n stages downsample by 2**(n - 1).
        num_blocks: Residual blocks of each stage, and after the last, at least 1.
        latent_channels: Channels of the latents, at least 1.
        downsampling: How the resolution is halved: ``pool`` averages 2 x 2 positions, as in
            MaskGIT; ``conv`` is a convolution of stride 2, as in VQGAN+ and MaskBit.
        input_range: Black and white inside. The published networks have [0, 1]; their first
            convolution pads with zeros, which are black there and gray in [-1, 1].

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
        channels: Annotated[int, at_least(1)],
        multipliers: list[int],
        num_blocks: Annotated[int, at_least(1)],
        latent_channels: Annotated[int, at_least(1)],
        downsampling: Annotated[str, one_of("pool", "conv")],
        input_range: Sequence[float],
    ) -> None:
        super().__init__()
        check_levels(multipliers=multipliers, attention_factors=[])
        require(
            len(input_range) == 2 and input_range[0] < input_range[1],
            f"input_range must be two numbers, black and white, got {list(input_range)}",
        )
        self.black, self.white = input_range
        self.out_channels = latent_channels
        factor = 2 ** (len(multipliers) - 1)
        self.downsampling = (factor, factor)
        self.layers = WayDown(
            lambda before, after: ResidualBlock(
                in_channels=before, out_channels=after, bias=False, shortcut="output"
            ),
            {
                "pool": lambda _: nn.AvgPool2d(2),
                "conv": lambda width: Downsample(channels=width),
            }[downsampling],
            in_channels=in_channels,
            channels=channels,
            multipliers=multipliers,
            num_blocks=num_blocks,
            latent_channels=latent_channels,
        )

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]."""
        contrast, gray = (self.white - self.black) / 2, (self.white + self.black) / 2
        return self.layers(samples * contrast + gray)
