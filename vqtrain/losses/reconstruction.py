"""How far a reconstruction is from its image, pixel by pixel."""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import ConfigError


@final
class ReconstructionLoss(nn.Module):
    """A weighted mix of the mean absolute and the mean squared error.

    Both are means over all elements of images in [-1, 1], computed in at least float32.

    Args:
        l1: Share of the absolute error, at least 0.
        l2: Share of the squared error, at least 0; not 0 together with ``l1``.
        weight: What the mix is multiplied by, at least 0.

    Raises:
        ConfigError: If a number is negative or not finite, or both shares are 0.
    """

    def __init__(self, *, l1: float, l2: float, weight: float) -> None:
        super().__init__()
        for name, value in (("l1", l1), ("l2", l2), ("weight", weight)):
            if not 0.0 <= value < math.inf:
                raise ConfigError(
                    f"loss.reconstruction.{name} must be at least 0 and finite, got {value}"
                )
        if l1 == l2 == 0.0:
            raise ConfigError(
                "loss.reconstruction.l1 and loss.reconstruction.l2 must not both be 0; "
                "for no reconstruction loss set loss.reconstruction.weight to 0"
            )
        self.l1 = l1
        self.l2 = l2
        self.weight = weight

    def forward(
        self, reconstruction: Float[Tensor, "b c h w"], images: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Compare, and weigh the result."""
        dtype = torch.promote_types(
            torch.promote_types(reconstruction.dtype, images.dtype), torch.float32
        )
        difference = reconstruction.to(dtype) - images.to(dtype)
        loss = difference.new_zeros(())
        if self.l1 > 0.0:
            loss = loss + self.l1 * difference.abs().mean()
        if self.l2 > 0.0:
            loss = loss + self.l2 * difference.square().mean()
        return self.weight * loss
