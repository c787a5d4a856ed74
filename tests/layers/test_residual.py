"""The residual blocks against formulas written out from their raw weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.layers.residual import BottleneckBlock, ResidualBlock


def normalized(x: Tensor, groups: int, scale: Tensor, shift: Tensor) -> Tensor:
    flat = x.reshape(x.shape[0], groups, -1)
    mean = flat.mean(dim=2, keepdim=True)
    variance = ((flat - mean) ** 2).mean(dim=2, keepdim=True)
    unit = ((flat - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
    return unit * scale[None, :, None, None] + shift[None, :, None, None]


def swish(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


@pytest.mark.parametrize(("in_channels", "out_channels"), [(64, 64), (64, 96)])
def test_residual_block_equals_the_formula(in_channels: int, out_channels: int) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(in_channels=in_channels, out_channels=out_channels, dropout=0.0).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.1)
    w = block.state_dict()
    x = torch.randn(2, in_channels, 5, 3, dtype=torch.float64)
    h = swish(normalized(x, 32, w["norm1.weight"], w["norm1.bias"]))
    h = F.conv2d(h, w["conv1.weight"], w["conv1.bias"], padding=1)
    h = swish(normalized(h, 32, w["norm2.weight"], w["norm2.bias"]))
    h = F.conv2d(h, w["conv2.weight"], w["conv2.bias"], padding=1)
    shortcut = x
    if in_channels != out_channels:
        shortcut = torch.einsum("oc,bchw->bohw", w["nin_shortcut.weight"][:, :, 0, 0], x)
        shortcut = shortcut + w["nin_shortcut.bias"][:, None, None]
    torch.testing.assert_close(block(x), shortcut + h)


def test_residual_block_has_a_shortcut_only_where_widths_differ() -> None:
    names = set(ResidualBlock(in_channels=8, out_channels=8, dropout=0.0).state_dict())
    wider = set(ResidualBlock(in_channels=8, out_channels=16, dropout=0.0).state_dict())
    assert wider - names == {"nin_shortcut.weight", "nin_shortcut.bias"}


def test_dropout_acts_in_training_alone() -> None:
    block = ResidualBlock(in_channels=8, out_channels=8, dropout=0.5)
    x = torch.randn(1, 8, 4, 4)
    assert not torch.equal(block(x), block(x))
    assert torch.equal(block.eval()(x), block(x))


def test_bottleneck_block_equals_a_value_worked_out_by_hand() -> None:
    block = BottleneckBlock(channels=1, block_channels=1)
    with torch.no_grad():
        block.conv1.weight.fill_(1.0)  # the sum of the 3x3 neighborhood
        block.conv1.bias.fill_(-4.0)
        block.conv2.weight.fill_(2.0)
        block.conv2.bias.fill_(0.5)
    x = torch.tensor([[[[1.0, -2.0], [3.0, 1.0]]]])
    # ReLU: 1 0 / 3 1. Every neighborhood holds all four: sum 5. ReLU(5 - 4) = 1, 2 * 1 + 0.5 = 2.5.
    torch.testing.assert_close(block(x), x + 2.5)
    # With the bias at -6 the inner ReLU closes, and the outer bias of 0.5 alone is left.
    with torch.no_grad():
        block.conv1.bias.fill_(-6.0)
    torch.testing.assert_close(block(x), x + 0.5)


def test_bottleneck_block_leaves_its_input_as_it_was() -> None:
    block = BottleneckBlock(channels=4, block_channels=2)
    x = torch.randn(1, 4, 3, 3)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)
