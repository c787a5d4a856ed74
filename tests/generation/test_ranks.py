"""Rank correlations against values worked out by hand."""

import math

import pytest

from vqtrain.generation.ranks import describe, rank_correlations


def test_rank_correlations_are_spearmans() -> None:
    figures = {
        "a": [10.0, 20.0, 30.0, 40.0, 50.0],
        "same": [1.0, 1.1, 1.2, 5.0, 99.0],
        "opposite": [5.0, 4.0, 3.0, 2.0, 1.0],
        # Ranks 2 1 4 3 5, differences 1 1 1 1 0: 1 - 6 * 4 / (5 * 24) = 0.8.
        "swapped": [2.0, 1.0, 4.0, 3.0, 5.0],
        # Ranks 1.5 1.5 3 4 5: covariance 9.5, variances 10 and 9.5.
        "tied": [0.0, 0.0, 1.0, 2.0, 3.0],
        "missing": [1.0, None, 3.0, math.nan, 2.0],  # ranks 1 3 2 of three: 1 - 6 * 2 / 24
    }
    found = {(each.first, each.second): each for each in rank_correlations(figures)}
    assert len(found) == 15
    assert found["a", "same"].value == pytest.approx(1)
    assert found["a", "opposite"].value == pytest.approx(-1)
    assert found["a", "swapped"].value == pytest.approx(0.8)
    assert found["a", "tied"].value == pytest.approx(9.5 / math.sqrt(95))
    assert found["a", "missing"].value == pytest.approx(0.5)
    assert (found["a", "same"].count, found["a", "missing"].count) == (5, 3)
    (head, line) = describe([found["a", "swapped"]])
    assert "1 is the same, -1 the opposite" in head
    assert line.split() == ["a,", "swapped", "+0.80", "(5", "tokenizers)"]


def test_orders_that_say_nothing_are_left_out() -> None:
    figures = {"few": [1.0, 2.0, None], "equal": [1.0, 1.0, 1.0], "other": [1.0, 2.0, 3.0]}
    assert rank_correlations(figures) == describe([]) == []
    assert rank_correlations({"alone": [1.0, 2.0, 3.0]}) == []
