"""Nearest-code search against torch.cdist, over tile borders and ties."""

import pytest
import torch

from vqtrain.codebooks.parts import search


@pytest.mark.parametrize("size", [1, 7, search.TILE, 2 * search.TILE + 5])
def test_nearest_equals_the_full_distance_matrix(size: int) -> None:
    z = torch.randn(50, 4, dtype=torch.float64)
    codes = torch.randn(size, 4, dtype=torch.float64)
    assert torch.equal(search.nearest(z, codes), torch.cdist(z, codes).argmin(1))


def test_the_answer_does_not_depend_on_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    z, codes = torch.randn(50, 4, dtype=torch.float64), torch.randn(100, 4, dtype=torch.float64)
    whole = search.nearest(z, codes)
    monkeypatch.setattr(search, "TILE", 7)
    assert torch.equal(search.nearest(z, codes), whole)


def test_of_equal_codes_the_first_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "TILE", 2)
    codes = torch.tensor([[5.0], [1.0], [1.0], [1.0]])
    assert search.nearest(torch.tensor([[1.0]]), codes).tolist() == [1]
