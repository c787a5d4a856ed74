"""A linear map of the channels at each position."""

from typing import final

from jaxtyping import Float
from torch import Tensor, nn


@final
class Pointwise(nn.Conv2d):
    """Maps the channels at each position of a grid of any number of axes.

    Its weight has the shape of a 1 x 1 convolution, as in the published image tokenizers.

    Args:
        in_channels: Channels before.
        out_channels: Channels after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b d *grid"]:
        """Map the channels."""
        if x.ndim == 4:
            return super().forward(x)  # as it is, whatever its memory format
        flat = super().forward(x.flatten(2)[..., None])
        return flat.reshape(len(x), -1, *x.shape[2:])
