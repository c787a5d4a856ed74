"""Tiles against the network itself, where it looks at one place, and at what borders may change."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.ops.tiles import in_tiles


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 40), (44, 16), (52, 36), (8, 12)])
def test_what_looks_at_one_place_is_the_same_in_tiles(height: int, width: int) -> None:
    x = torch.randn(2, 3, height, width)
    torch.testing.assert_close(in_tiles(torch.tanh, x, tile=(16, 16), unit=(4, 4)), x.tanh())


@pytest.mark.parametrize("scale", [0.25, 1, 4])
def test_the_network_may_scale_both_sides(scale: float) -> None:
    def network(part: Tensor) -> Tensor:
        return (
            F.avg_pool2d(part, 4)
            if scale < 1
            else part.repeat_interleave(int(scale), 2).repeat_interleave(int(scale), 3)
        )

    x = torch.randn(1, 2, 40, 24)
    torch.testing.assert_close(in_tiles(network, x, tile=(16, 16), unit=(4, 4)), network(x))


def test_no_piece_is_larger_than_a_tile_and_all_are_full() -> None:
    seen = []

    def network(part: Tensor) -> Tensor:
        seen.append(tuple(part.shape[2:]))
        return part

    in_tiles(network, torch.zeros(1, 1, 36, 20), tile=(16, 16), unit=(4, 4))
    # Steps of 12: rows at 0, 12 and 20; columns at 0 and 4.
    assert seen == [(16, 16)] * 6


def test_an_overlap_is_a_ramp_from_one_tile_to_the_next() -> None:
    made = iter([torch.zeros(1, 1, 1, 8), torch.ones(1, 1, 1, 8)])
    blended = in_tiles(lambda _: next(made), torch.zeros(1, 1, 1, 14), tile=(8, 8), unit=(1, 1))
    # Two places are shared; weights rise 1, 2 from the new tile and fall 2, 1 from the old one.
    expected = [0.0] * 6 + [1 / 3, 2 / 3] + [1.0] * 6
    torch.testing.assert_close(blended[0, 0, 0], torch.tensor(expected))


def test_only_what_is_near_the_border_of_a_tile_differs_for_a_convolution() -> None:
    weight = torch.randn(1, 1, 3, 3)
    x = torch.randn(1, 1, 16, 28)

    def network(part: Tensor) -> Tensor:
        return F.conv2d(part, weight, padding=1)

    differs = (in_tiles(network, x, tile=(16, 16), unit=(4, 4)) - network(x)).abs() > 1e-5
    # Tiles begin at 0 and 12: the first ends at column 16, so 15 lacks its neighbor, as 12 does.
    assert differs.any(2).squeeze().nonzero().flatten().tolist() == [12, 15]
