"""Counts, sums and draws of a step."""

import torch
from vqtrain.layers.statistics import CodeStatistics, draw_codes, draw_positions


def test_counts_and_sums_by_hand() -> None:
    statistics = CodeStatistics(size=3, dim=2)
    statistics.add(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([2, 0]))
    statistics.add(torch.tensor([[5.0, 6.0], [7.0, 8.0]]), torch.tensor([2, 2]))
    counts, sums, drawn = statistics.collect()
    assert counts.tolist() == [1.0, 0.0, 3.0]
    assert sums.tolist() == [[3.0, 4.0], [0.0, 0.0], [13.0, 16.0]]
    pool = {(1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0)}
    rows = {tuple(row) for row in drawn.tolist()}
    assert rows <= pool
    assert len(rows) == 3  # four vectors, three codes: none twice


def test_collect_and_clear_leave_nothing_behind() -> None:
    statistics = CodeStatistics(size=2, dim=1)
    statistics.add(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64))
    statistics.clear()
    statistics.add(torch.ones(1, 1), torch.ones(1, dtype=torch.int64))
    assert statistics.collect()[0].tolist() == [0.0, 1.0]
    assert statistics.state_dict() == {}


def test_no_position_comes_twice_before_every_other_came() -> None:
    assert sorted(draw_positions(10, 10).tolist()) == list(range(10))
    assert sorted(draw_positions(3, 7)[:6].tolist()) == [0, 0, 1, 1, 2, 2]


def test_fewer_vectors_than_codes_are_told_apart_by_a_little_noise() -> None:
    z = torch.tensor([[0.0], [10.0]])
    codes = draw_codes(z, 8)
    assert len(codes.unique()) == 8
    assert torch.minimum(codes.abs(), (codes - 10).abs()).max() < 0.5
