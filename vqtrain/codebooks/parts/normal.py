"""Latents that are read as normal distributions: means of all channels, then log-variances."""

import math

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

# Of log-variances, so that exp stays finite.
LOG_VARIANCES = (-30.0, 20.0)


def split(
    z: Float[Tensor, "b d *grid"],
) -> tuple[Float[Tensor, "b c *grid"], Float[Tensor, "b c *grid"]]:
    """Return the mean and the log-variance of each channel."""
    mean, log_variance = z.chunk(2, dim=1)
    return mean, log_variance.clamp(*LOG_VARIANCES)


def divergences(
    mean: Float[Tensor, "b c *grid"], log_variance: Float[Tensor, "b c *grid"]
) -> Float[Tensor, "b c *grid"]:
    """Return the divergence of each channel from the standard normal distribution, in nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def bits_of_groups(
    divergence: Float[Tensor, "b c *grid"], num_groups: int
) -> Float[Tensor, "b n *grid"]:
    """Sum divergences in nats over groups of channels, in bits.

    Group j of n has the channels j, j + n, j + 2n and so on.
    """
    groups = rearrange(divergence, "b (g n) ... -> b g n ...", n=num_groups)
    return groups.sum(1) / math.log(2)
