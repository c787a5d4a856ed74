"""Normalization of feature maps."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.ops.precision import at_least_float32

MOMENTUM = 0.1  # share of a batch in the running statistics


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


@final
class RMSNorm(nn.Module):
    """Divides feature maps by the root mean square of their channels at each position.

    Args:
        channels: Channels of the feature map.
        eps: Added to the mean square.

    References:
        Zhang and Sennrich 2019, arXiv:1910.07467; with a bias, as in DC-AE.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
        """Normalize each position, in at least float32."""
        last = at_least_float32(x.movedim(1, -1))
        normed = last * (last.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return (normed.to(x.dtype) * self.weight + self.bias).movedim(-1, 1)


@final
class BatchNorm(nn.Module):
    """Batch normalization of feature maps of any axes, whose statistics are those of all ranks.

    So ranks together give what one process gives for their joined batch, and keep equal running
    statistics. A step still depends on how it is split into batches. It changes its statistics in
    ``forward``, so it cannot be a part of a ``Block``.

    Args:
        channels: Channels of the feature map.
        eps: Added to the variance.

    References:
        Ioffe and Szegedy 2015, arXiv:1502.03167. The parameters are named as in ``nn.BatchNorm3d``.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
        """Normalize each channel, in eval mode by the running statistics."""
        if not (self.training and distributed.is_running()):
            state = self.running_mean, self.running_var, self.weight, self.bias
            return F.batch_norm(x, *state, self.training, MOMENTUM, self.eps)
        wide = at_least_float32(x)
        each = [axis for axis in range(x.ndim) if axis != 1]
        shape = (1, -1, *[1] * (x.ndim - 2))
        count = distributed.all_reduce_sum(wide.new_tensor(x.numel() / x.shape[1]))
        mean = distributed.all_reduce_sum_with_gradient(wide.sum(each)) / count
        centered = wide - mean.reshape(shape)
        squares = distributed.all_reduce_sum_with_gradient(centered.square().sum(each))
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean), MOMENTUM)
            self.running_var.lerp_((squares / (count - 1)).to(self.running_var), MOMENTUM)
        scale = (squares / count + self.eps).rsqrt() * self.weight
        return (centered * scale.reshape(shape) + self.bias.reshape(shape)).to(x.dtype)
