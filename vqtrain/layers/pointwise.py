"""A linear map of the channels at each position."""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

# Of the mean variance of a channel, added to all variances: the limit of what whitening amplifies.
RIDGE = 1e-3


@final
class Pointwise(nn.Conv2d):
    """Maps the channels at each position of a grid of any number of axes.

    Its weight has the shape of a 1 x 1 convolution, as in the published image tokenizers.

    Args:
        in_channels: Channels before.
        out_channels: Channels after.
        bias: Whether there is one.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b d *grid"]:
        """Map the channels."""
        if x.ndim == 4:
            return super().forward(x)  # as it is, whatever its memory format
        flat = super().forward(x.flatten(2)[..., None])
        return flat.reshape(x.shape[0], -1, *x.shape[2:])

    @torch.no_grad()
    def standardize(
        self, z: Float[Tensor, "b d *grid"], std: float, *, whiten: bool
    ) -> Float[Tensor, "b d *grid"]:
        """Change the map so that outputs have a mean of 0 and channels a variance of std^2.

        Outputs that are constant or not finite change nothing.

        Args:
            z: Outputs of the map, by which to choose the change.
            std: Root mean square of all channels afterwards, above 0.
            whiten: Give outputs the covariance std^2 I, where directions with a variance below
                ``RIDGE`` times the mean one get less. Otherwise one factor scales all of them.

        Returns:
            What the changed map gives instead of z.
        """
        flat = rearrange(z, "b d ... -> (b ...) d").double()
        mean = flat.mean(0)
        covariance = (flat - mean).T @ (flat - mean) / len(flat)
        variance = covariance.diagonal().mean()
        rounding = (torch.finfo(z.dtype).eps ** 2) * flat.square().mean()
        if not rounding < variance < torch.inf:
            return z
        identity = torch.eye(len(mean), dtype=flat.dtype, device=z.device)
        if whiten:
            variances, directions = torch.linalg.eigh(covariance + RIDGE * variance * identity)
            change = (directions * (std * variances.rsqrt())) @ directions.T
        else:
            change = std * variance.rsqrt() * identity
        assert self.bias is not None, "the constructor makes one"
        weight = torch.einsum("ed,dc...->ec...", change, self.weight.double())
        self.weight.copy_(weight)
        self.bias.copy_(change @ (self.bias.double() - mean))
        changed = ((flat - mean) @ change).to(z.dtype).reshape(len(z), *z.shape[2:], -1)
        return changed.movedim(-1, 1)
