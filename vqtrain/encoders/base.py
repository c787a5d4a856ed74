"""The contract every encoder keeps."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Turns images into latents, knowing nothing of the codebook that comes next.

    Attributes:
        out_channels: Channels of the latents.
        downsampling: Pixels per latent along each axis; it must divide the size of the images.
    """

    out_channels: int
    downsampling: int

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z *grid"]:
        """Encode images in [-1, 1]."""
