"""LPIPS as a metric: how different the reconstructions of single images look."""

from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from vqtrain.layers.lpips import LPIPS
from vqtrain.ops.pixels import to_images
from vqtrain.ops.precision import without_autocast
from vqtrain.shapes import Pixels


@final
class LPIPSDistance:
    """Measures LPIPS on the rounded pixels that people see and store, in float32.

    Args:
        network: The network, with its weights; it stays or becomes float32.
    """

    def __init__(self, *, network: LPIPS) -> None:
        self.network = network.float()

    def to(self, device: torch.device) -> "LPIPSDistance":
        """Move the network."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the distance of each image, at least 0; 0 for equal images.

        Args:
            reconstruction: Pixels as uint8; gray ones are repeated to three channels.
            original: Pixels as uint8.

        Raises:
            ConfigError: If images have neither 1 nor 3 channels, or are too small for the network.
            TypeError: If the pixels are not uint8.
            ValueError: If the shapes differ.
        """
        for pixels in (reconstruction, original):
            if pixels.dtype != torch.uint8:
                raise TypeError(f"LPIPS is measured on uint8 pixels, got {pixels.dtype}")
        if reconstruction.shape != original.shape:
            raise ValueError(
                "LPIPS compares two batches of one shape [b, c, h, w], got "
                f"{list(reconstruction.shape)} and {list(original.shape)}"
            )
        images = to_images(original)
        with without_autocast(images):
            return self.network(to_images(reconstruction), images).double()
