"""Weight normalization against torch's own parametrization."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from vqtrain.layers.weight_norm import WeightNorm


@pytest.mark.parametrize("conv", [nn.Conv1d, nn.ConvTranspose1d])
def test_weights_are_directions_and_lengths(conv: type[nn.Conv1d]) -> None:
    torch.manual_seed(0)
    plain = conv(3, 4, 6, stride=2).double()
    mine, theirs = WeightNorm(copy.deepcopy(plain)), weight_norm(copy.deepcopy(plain))
    x = torch.randn(2, 3, 9).double()
    torch.testing.assert_close(mine(x), plain(x))
    parametrized = theirs.parametrizations.weight
    for ours, other in ((mine.gain, parametrized.original0), (mine.weight, parametrized.original1)):
        assert ours.shape == other.shape
        drawn = torch.randn_like(ours)
        ours.data.copy_(drawn)
        other.data.copy_(drawn)
    torch.testing.assert_close(mine(x), theirs(x))
    for module in (mine, theirs):
        module(x).square().sum().backward()
    torch.testing.assert_close(mine.gain.grad, parametrized.original0.grad)
    torch.testing.assert_close(mine.weight.grad, parametrized.original1.grad)
