"""The groups of the group normalization."""

import pytest

from vqtrain.layers.norm import group_norm


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
