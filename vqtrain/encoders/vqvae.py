"""The encoder of the VQ-VAE."""

from itertools import pairwise
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.layers.residual import BottleneckBlock
from vqtrain.ranges import at_least, checked


@final
class VQVAEEncoder(Encoder):
    """Strided convolutions and a few residual blocks: small, without normalization, quick on a CPU.

    Args:
        in_channels: Channels of the images, at least 1.
        channels: Channels of the latents, at least 2; half as many after the first convolution.
        block_channels: Channels inside the residual blocks, at least 1.
        num_blocks: Residual blocks, at least 0.
        num_downsamplings: Convolutions of stride 2, at least 1.

    Raises:
        ConfigError: If a size is too small.

    References:
        van den Oord et al. 2017, arXiv:1711.00937, section 4.1, and the 3x3 convolution before the
        residual blocks that its reference implementation in Sonnet adds.
        Deviation: any number of downsamplings; the paper has 2.
    """

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(2)],
        block_channels: Annotated[int, at_least(1)],
        num_blocks: Annotated[int, at_least(0)],
        num_downsamplings: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        self.out_channels = channels
        self.downsampling = (2**num_downsamplings, 2**num_downsamplings)
        widths = [in_channels, channels // 2] + [channels] * (num_downsamplings - 1)
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers.append(nn.Conv2d(width, next_width, kernel_size=4, stride=2, padding=1))
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1))
        layers.extend(
            BottleneckBlock(channels=channels, block_channels=block_channels)
            for _ in range(num_blocks)
        )
        layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]; the latents are never negative."""
        return self.layers(samples)
