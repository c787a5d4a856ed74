"""The encoder of the VQ-VAE."""

from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.encoders.base import Encoder
from vqtrain.layers.strided import strided_down
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
        self.layers = strided_down(
            in_channels=in_channels,
            channels=channels,
            block_channels=block_channels,
            num_blocks=num_blocks,
            num_downsamplings=num_downsamplings,
        )

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]; the latents are never negative."""
        return self.layers(samples)
