"""The encoder of the DALL-E dVAE."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.layers.resampling import Multipliers, factors
from vqtrain.layers.scaled import convolution, scaled_groups
from vqtrain.ranges import at_least, checked


@final
class DVAEEncoder(Encoder):
    """Residual blocks without normalization, whose outputs are scaled down, and max-pooling.

    What scores the codes, a 1x1 convolution in the paper's code, belongs to the codebook.

    Args:
        in_channels: Channels of the images, at least 1.
        channels: Channels that the multipliers multiply, at least 4.
        multipliers: Width of each group of blocks, each at least 1; n groups downsample by
            2**(n - 1).
        num_blocks: Residual blocks of each group, at least 1.

    Raises:
        ConfigError: If a size is too small.

    References:
        Ramesh et al. 2021, arXiv:2102.12092, appendix A.1, and its code.
    """

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(4)],
        multipliers: Multipliers,
        num_blocks: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        widths = [channels * multiplier for multiplier in multipliers]
        self.out_channels = widths[-1]
        self.downsampling = factors(multipliers)
        groups = scaled_groups(
            widths,
            in_channels=channels,
            num_blocks=num_blocks,
            kernel_sizes=(3, 3, 3, 1),
            resampling=nn.MaxPool2d(2),
        )
        self.layers = nn.Sequential(convolution(in_channels, channels, 7), *groups, nn.ReLU())

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]; the latents are never negative."""
        # The paper's pixels are in [0.1, 0.9], where the logarithms of its loss are finite.
        return self.layers(0.4 * samples + 0.5)
