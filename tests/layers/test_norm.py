"""The groups of the group normalization, and batch normalization over ranks."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from vqtrain.layers.norm import BatchNorm, group_norm


@pytest.mark.parametrize("channels", [32, 64, 96, 128, 256, 512])
def test_published_widths_have_32_groups(channels: int) -> None:
    norm = group_norm(channels)
    assert norm.num_groups == 32
    assert norm.eps == 1e-6


@pytest.mark.parametrize(
    ("channels", "groups"),
    # 48 = 24 * 2 and 40 = 20 * 2: the halves are the largest divisors below 32. 37 is a prime.
    [(8, 8), (31, 31), (37, 1), (40, 20), (48, 24)],
)
def test_other_widths_have_the_largest_divisor_below_32(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("axes", [1, 3])
def test_batch_norm_is_that_of_torch(axes: int) -> None:
    torch.manual_seed(0)
    kind = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[axes]
    own, other = BatchNorm(4).double(), kind(4).double()
    nn.init.normal_(own.weight)
    other.load_state_dict(own.state_dict(), strict=False)
    x = torch.randn(3, 4, *[5] * axes, dtype=torch.float64)
    torch.testing.assert_close(own(x), other(x))
    torch.testing.assert_close(own.running_var, other.running_var)
    torch.testing.assert_close(own.eval()(x), other.eval()(x))


TWO_RANKS = """
from vqtrain.layers.norm import BatchNorm
from vqtrain import distributed
torch.manual_seed(0)
x = torch.randn(4, 3, 5, dtype=torch.float64)
x = (x[2 * rank: 2 * rank + 2] if world_size > 1 else x).requires_grad_()
norm = torch.nn.Sequential(BatchNorm(3), BatchNorm(3)).double()
norm(x).pow(3).sum().backward()  # in which all values of a channel meet
weights = [distributed.all_reduce_sum(p.grad) for p in norm.parameters()]
if rank == 0:
    torch.save([x.grad[:2], *weights, *norm.buffers()], f"{folder}/found.pt")
"""


@pytest.mark.ddp
def test_batch_norm_of_two_ranks_is_that_of_their_joined_batch(
    run_ranks: Callable[[str, int], Path],
) -> None:
    both = [torch.load(run_ranks(TWO_RANKS, ranks) / "found.pt") for ranks in (1, 2)]
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-12)
