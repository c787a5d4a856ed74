"""The perceptual term: LPIPS as a loss."""

import math
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import ConfigError
from vqtrain.layers.lpips import LPIPS
from vqtrain.ops.precision import at_least_float32, without_autocast


@final
class PerceptualLoss(nn.Module):
    """The weighted mean LPIPS distance of reconstructions from images, in at least float32.

    Args:
        network: The network, with its weights.
        weight: What the distance is multiplied by, above 0.

    Raises:
        ConfigError: If the weight is not above 0, or not finite.
    """

    def __init__(self, *, network: LPIPS, weight: float) -> None:
        super().__init__()
        if not 0.0 < weight < math.inf:
            raise ConfigError(
                f"loss.perceptual.weight must be above 0 and finite, got {weight}; "
                "for no perceptual loss set loss/perceptual=none"
            )
        self.network, self.weight = network, weight

    def forward(
        self, reconstruction: Float[Tensor, "b c h w"], images: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, ""]:
        """Compare images in [-1, 1]; gradients go to the reconstruction alone."""
        with without_autocast(images):
            distance = self.network(at_least_float32(reconstruction), at_least_float32(images))
        return self.weight * distance.mean()
