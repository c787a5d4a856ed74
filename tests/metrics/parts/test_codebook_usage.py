"""The use of codebooks against values worked out by hand, also where ids are too many to list."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtrain.metrics.parts import codebook_usage as codebook
from vqtrain.metrics.parts.codebook_usage import (
    IdCounts,
    is_collapsed,
    perplexity,
    top1_share,
    usage,
)


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


def test_the_top1_share_is_that_of_the_most_frequent_id() -> None:
    # 3 of 6, and 1 of 1.
    assert top1_share(torch.tensor([[1, 2, 3], [0, 1, 0]])).item() == (3 / 6 + 1) / 2
    assert top1_share(torch.tensor([[0, 0]])).item() == 0


TOKEN_IDS = torch.tensor([[[0, 1, 1], [2, 2, 2]], [[0, 0, 1], [0, 1, 2]]])


def test_each_codebook_is_counted_by_itself() -> None:
    counts = IdCounts(num_codebooks=2, size=4)
    counts.add(TOKEN_IDS)
    # Ids of the first codebook: 0 1 1 0 0 1. Of the second: 2 2 2 0 1 2.
    assert [n.tolist() for _, n in counts.rows] == [[3, 3, 0, 0], [1, 1, 4, 0]]
    assert counts.tokens == 6
    assert counts.metrics()["usage"] == (2 / 4 + 3 / 4) / 2
    assert counts.metrics()["top1_share"] == (3 / 6 + 4 / 6) / 2


def test_ids_too_many_to_list_are_counted_by_those_that_occur(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dense, sparse = IdCounts(num_codebooks=2, size=4), IdCounts(num_codebooks=2, size=2**62)
    for part in TOKEN_IDS.split(1):
        dense.add(part)
        sparse.add(part + 2**61)
    found, expected = sparse.metrics(), dense.metrics()
    for name in ("perplexity", "top1_share"):
        assert found[name] == pytest.approx(expected[name], rel=1e-12)
    # Of 6 tokens 2 and 3 ids; there could have been 6.
    assert found["usage@tokens"] == pytest.approx((2 / 6 + 3 / 6) / 2)
    assert "usage" not in found
    assert [ids.tolist() for ids, _ in sparse.rows if ids is not None] == [
        [2**61, 2**61 + 1],
        [2**61, 2**61 + 1, 2**61 + 2],
    ]
    monkeypatch.setattr(codebook, "LARGEST_DENSE", 3)
    few = IdCounts(num_codebooks=2, size=4)
    few.add(TOKEN_IDS)
    assert few.metrics()["usage@tokens"] == (2 / 4 + 3 / 4) / 2  # of 4 ids, with 6 tokens


@pytest.mark.parametrize("size", [4, 2**62])
def test_a_state_continues_where_it_was_taken(size: int) -> None:
    counts, other = (IdCounts(num_codebooks=2, size=size) for _ in range(2))
    counts.add(TOKEN_IDS)
    other.load_state_dict(counts.state_dict(), torch.device("cpu"))
    for each in (counts, other):
        each.add(TOKEN_IDS.flip(0) + 1)
    assert other.metrics() == counts.metrics()
    counts.empty()
    assert counts.tokens == 0
    assert len(counts.rows) == 2


def test_of_a_continuous_codebook_nothing_is_counted() -> None:
    counts = IdCounts(num_codebooks=0, size=0)
    counts.add(torch.empty(2, 0, 4, 4, dtype=torch.int64))
    counts.reduce()
    assert counts.metrics() == {}


@pytest.mark.ddp
def test_ids_are_counted_over_all_ranks(run_ranks: Callable[[str, int], Path]) -> None:
    script = """
from vqtrain.metrics.parts.codebook_usage import IdCounts
for size in (16, 2**62):
    counts = IdCounts(num_codebooks=1, size=size)
    counts.add(torch.tensor([[[0, 1, 1], [5, 7, 7]][rank]])[:, None])
    counts.reduce()
    ids, n = counts.rows[0]
    assert counts.tokens == 6
    assert n[n > 0].tolist() == [1, 2, 1, 2], n
    assert ids is None or ids.tolist() == [0, 1, 5, 7]
"""
    run_ranks(script, 2)


@pytest.mark.parametrize(
    ("perplexity", "size", "tokens", "expected"),
    [
        # 4 ids of 4 can be seen in 10**9 tokens, and a tenth of them is 0.4.
        (0.39, 4, 10**9, True),
        (0.41, 4, 10**9, False),
        # 1,000 tokens show 10**6 (1 - exp(-0.001)) = 999.5 of a million ids.
        (99.9, 10**6, 1000, True),
        (100.0, 10**6, 1000, False),
    ],
)
def test_a_collapse_is_measured_by_what_could_be_seen(
    perplexity: float, size: int, tokens: int, expected: bool
) -> None:
    assert is_collapsed(perplexity, size=size, tokens=tokens) is expected
