"""Recall against ranks by hand."""

import math

import pytest
import torch

from vqtrain.metrics.parts.declarations import declaration
from vqtrain.metrics.retrieval import Retrieval


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_ranks_of_seven_images_by_hand() -> None:
    # Texts lie at 0, 10, 20 ... 60 degrees, but for the last, which repeats the first.
    words = ["a", "b", "c", "d", "e", "f", "a"]
    texts = unit(0, 10, 20, 30, 40, 50, 0)
    images = unit(4, 10, 41, 29, 45.1, -80, 24)
    found = Retrieval().values(images, texts, words)
    # Texts nearer than the own, of six: 0 for the images at 4 (a), 10 (b) and 29 (d); for 41 (c at
    # 20): e, f, d are nearer, so 3; for 45.1 (e at 40): f is, so 1; for -80 (f): all 5 are; for 24
    # (a): c, d, b and e are, so 4.
    assert found["retrieval_image_to_text@1"] == pytest.approx(100 * 3 / 7)
    assert found["retrieval_image_to_text@5"] == pytest.approx(100 * 6 / 7)
    # Images of others nearer than the nearest of one's own: a at 0 has 4, nothing is nearer; b has
    # 10; c at 20 has 41, and 24, 29, 10, 4 are nearer: 4; d has 29; e at 40 has 45.1, and 41 is
    # nearer: 1; f at 50 has -80: all 6 others are.
    assert found["retrieval_text_to_image@1"] == pytest.approx(100 * 3 / 6)
    assert found["retrieval_text_to_image@5"] == pytest.approx(100 * 5 / 6)
    assert found["retrieval"] == pytest.approx((300 / 7 + 600 / 7 + 50 + 500 / 6) / 4)


def test_parts_of_the_comparison_are_the_same_as_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, texts = (torch.nn.functional.normalize(torch.randn(50, 4)) for _ in range(2))
    words = [str(number // 2) for number in range(50)]
    texts = texts[[number // 2 for number in range(50)]]
    found = Retrieval().values(images, texts, words)
    monkeypatch.setattr("vqtrain.metrics.retrieval.CHUNK", 120)
    assert Retrieval().values(images, texts, words) == found
    assert 0 < found["retrieval"] < 100


def test_no_image_has_no_recall_and_names_have_titles() -> None:
    none = Retrieval().values(torch.zeros(0, 3), torch.zeros(0, 3), [])
    assert all(math.isnan(value) for value in none.values())
    found = declaration("val/retrieval_image_to_text@5")
    assert (found.title, found.unit, found.higher_is_better) == (
        "Recall image to text@5",
        "%",
        True,
    )
