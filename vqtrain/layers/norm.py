"""Normalization of feature maps."""

from torch import nn


def group_norm(channels: int, eps: float = 1e-6) -> nn.GroupNorm:
    """Build the group normalization of the VQGAN networks.

    There are 32 groups if 32 divides the channels, as in every published network. Otherwise the
    number of groups is the largest divisor below 32, so that small networks work too.

    Args:
        channels: Channels of the feature map, at least 1.
        eps: Added to the variance.

    References:
        Esser et al. 2021, arXiv:2012.09841 (32 groups, eps 1e-6).

    Example:
        >>> group_norm(96).num_groups, group_norm(40).num_groups, group_norm(37).num_groups
        (32, 20, 1)
    """
    groups = max(divisor for divisor in range(1, 33) if channels % divisor == 0)
    return nn.GroupNorm(num_groups=groups, num_channels=channels, eps=eps)
