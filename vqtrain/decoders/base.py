"""The contract every decoder keeps."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Decoder(nn.Module, ABC):
    """Turns quantized latents into images, knowing nothing of the codebook they come from.

    Attributes:
        in_channels: Channels of the latents.
        upsampling: Pixels per latent along each axis.
    """

    in_channels: int
    upsampling: int

    @property
    @abstractmethod
    def last_layer(self) -> nn.Module:
        """The last linear map before the pixels.

        The adaptive weight of an adversarial loss compares gradients on its ``weight``.
        """

    @abstractmethod
    def forward(self, z_q: Float[Tensor, "b z *grid"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
