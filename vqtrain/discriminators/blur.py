"""The blurred patch discriminator of VQGAN+ and MaskBit."""

from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.discriminators.base import Discriminator
from vqtrain.layers.blur import Blur
from vqtrain.layers.norm import group_norm
from vqtrain.ranges import at_least, checked

SLOPE = 0.1


def pooled(x: Float[Tensor, "*axes"], count: int, dim: int) -> Float[Tensor, "*other_axes"]:
    """Take the largest values of at most ``count`` windows along an axis that cover it evenly.

    The windows are those of ``nn.AdaptiveMaxPool2d``, which on a GPU has no deterministic gradient.
    """
    side = x.shape[dim]
    if side <= count:
        return x
    ends = [(n * side // count, -(-(n + 1) * side // count)) for n in range(count)]
    return torch.stack([x.narrow(dim, a, b - a).amax(dim) for a, b in ends], dim=dim)


@final
class BlurGAN(Discriminator):
    """Classifies patches by 3x3 convolutions, each blurred before its resolution is halved.

    Args:
        in_channels: Channels of an image, at least 1.
        channels: Width of the first two convolutions, at least 1; it doubles in each further layer.
        num_layers: Convolutions whose output is halved, at least 1.
        max_grid: Most logits along each axis, at least 1; a larger map is max-pooled to as many.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Weber et al. 2024, arXiv:2409.16211 (MaskBit), with four layers; its code, and that of TiTok
        with three.
        Deviation: maps smaller than ``max_grid`` are not enlarged to it.
    """

    axes = 2
    size_hint = "with discriminator.num_layers=1 it takes smaller images"

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(1)],
        num_layers: Annotated[int, at_least(1)],
        max_grid: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        self.max_grid = max_grid
        self.first = nn.Sequential(
            nn.Conv2d(in_channels, channels, 5, padding=2), nn.LeakyReLU(SLOPE)
        )
        self.layers = nn.Sequential()
        width = channels
        for layer in range(num_layers):
            before, width = width, channels * 2**layer
            self.layers.extend(
                [
                    nn.Conv2d(before, width, 3, padding=1),
                    Blur(stride=2, padding=1),
                    group_norm(width, eps=1e-5),
                    nn.LeakyReLU(SLOPE),
                ]
            )
        self.to_logits = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(width, 1, 5, padding=2)
        )

    def forward(self, samples: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b 1 rows columns"]]:
        """Return one logit per patch of images in [-1, 1]: positive for real."""
        x = self.layers(self.first(samples))
        return [self.to_logits(pooled(pooled(x, self.max_grid, -2), self.max_grid, -1))]
