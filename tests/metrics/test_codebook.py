"""Usage and perplexity against values worked out by hand."""

import math

import pytest
import torch

from vqtrain.metrics.codebook import perplexity, usage


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[1, 0, 7, 0]], 0.5),
        ([[1, 1, 1, 1]], 1.0),
        ([[0, 0, 0, 0]], 0.0),
        ([[9, 0, 0, 0], [1, 2, 3, 0]], 0.5),  # (1/4 + 3/4) / 2
    ],
)
def test_usage_is_the_fraction_of_ids_seen(counts: list[list[int]], expected: float) -> None:
    assert usage(torch.tensor(counts)).item() == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[5, 5, 5, 5]], 4.0),
        ([[0, 9, 0, 0]], 1.0),
        ([[0, 0, 0, 0]], 0.0),
        # Shares 1/2, 1/4, 1/4: entropy ln(2) / 2 + 2 * ln(4) / 4 = 1.5 ln(2).
        ([[2, 1, 1, 0]], 2**1.5),
        ([[5, 5, 5, 5], [0, 9, 0, 0]], 2.5),  # (4 + 1) / 2
        ([[5, 5, 5, 5], [0, 0, 0, 0]], 2.0),  # (4 + 0) / 2
    ],
)
def test_perplexity_is_the_number_of_equally_frequent_ids(
    counts: list[list[int]], expected: float
) -> None:
    found = perplexity(torch.tensor(counts))
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected, rel=1e-14)


def test_perplexity_equals_a_plain_loop() -> None:
    counts = torch.randint(0, 1000, (2, 300), generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for row in counts.tolist():
        entropy = -sum(n / sum(row) * math.log(n / sum(row)) for n in row if n)
        expected += math.exp(entropy) / 2
    assert perplexity(counts).item() == pytest.approx(expected, rel=1e-13)


def test_counts_beyond_float32_are_exact() -> None:
    # 2^24 + 1 has no float32; of two ids that are this frequent, both count alike.
    counts = torch.tensor([[2**24 + 1, 2**24 + 1]])
    assert perplexity(counts).item() == pytest.approx(2.0, rel=1e-15)
