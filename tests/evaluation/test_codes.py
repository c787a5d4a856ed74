"""What single ids do, counted by hand."""

import math
from collections import Counter
from itertools import product

import pytest
import torch
from torch import Tensor

from vqtrain.codebooks.base import Codebook
from vqtrain.codebooks.fsq import FSQ
from vqtrain.codebooks.multiscale import MultiScale
from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.codebooks.vq import VQ
from vqtrain.evaluation import codes
from vqtrain.evaluation.codes import (
    CodeStatistics,
    distances_of,
    mutual_information_bits,
    shuffled,
    strongest_pairs,
    sums_in,
)

CPU = torch.device("cpu")
FOUR = FSQ(size=None, levels=[4], eps=1e-3)
INNER = {"kind": "fsq", "size": None, "levels": [4], "eps": 1e-3}


def entropy(counts: Counter) -> float:
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def added(codebook: Codebook, *batches: Tensor, pixels: int = 12) -> CodeStatistics:
    """Add images whose errors, distances and numbers follow from their ids."""
    statistics, first = CodeStatistics(codebook, CPU), 0
    torch.manual_seed(0)
    for token_ids in batches:
        count = len(token_ids)
        original = torch.randint(256, (count, 3, pixels, pixels), dtype=torch.uint8)
        reconstruction = torch.randint(256, (count, 3, pixels, pixels), dtype=torch.uint8)
        side = 4 if token_ids.ndim < 4 else token_ids.shape[-1]
        distances = torch.rand(count, side, side)
        ids = torch.arange(first, first + count)
        statistics.add(token_ids, original, reconstruction, distances, ids)
        first += count
    statistics.reduce()
    return statistics


def test_entropies_and_neighbors_are_those_of_the_pairs() -> None:
    token_ids = torch.randint(4, (60, 1, 3, 3), generator=torch.Generator().manual_seed(1))
    token_ids[:, :, :, 1] = token_ids[:, :, :, 0]  # the left neighbor says it all
    (found,) = added(FOUR, token_ids[:40], token_ids[40:]).describe()["grids"]
    images = token_ids[:, 0].tolist()
    for row, column in product(range(3), range(3)):
        expected = entropy(Counter(image[row][column] for image in images))
        assert found["position_entropy_bits"][row][column] == pytest.approx(expected)
    for name, (rows, columns) in {"left": (0, 1), "upper": (1, 0)}.items():
        pairs = [
            (image[row][column], image[row - rows][column - columns])
            for image in images
            for row, column in product(range(rows, 3), range(columns, 3))
        ]
        bits = entropy(Counter(a for a, _ in pairs)) + entropy(Counter(b for _, b in pairs))
        bits -= entropy(Counter(pairs))
        assert found[name]["mutual_information_bits"] == pytest.approx(bits)
        assert 0 < found[name]["by_chance_bits"] < 0.1
    assert found["left"]["mutual_information_bits"] > 0.3
    assert {pair["neighbor"] for pair in found["pairs"][:4]} == {"left"}
    assert all(pair["id"] == pair["neighbor_id"] for pair in found["pairs"][:4])


def test_pairs_are_compared_with_chance() -> None:
    joint = torch.tensor([[50, 10], [10, 30]])
    assert strongest_pairs(joint)[0] == {
        "id": 1,
        "neighbor_id": 1,
        "count": 30,
        "bits": pytest.approx(math.log2(0.3 / 0.16)),
    }
    assert len(strongest_pairs(joint)) == 2
    assert strongest_pairs(joint // 4) == []  # too rare to say anything
    drawn = shuffled(joint * 1000)
    assert int(drawn.sum()) == 100_000
    assert mutual_information_bits(drawn) < 1e-3
    bits = 0.5 * math.log2(0.5 / 0.36) + 0.3 * math.log2(0.3 / 0.16) + 0.2 * math.log2(0.1 / 0.24)
    assert mutual_information_bits(joint) == pytest.approx(bits)


@pytest.mark.parametrize("side", [3, 5])
def test_errors_are_shared_out_over_ids(side: int) -> None:
    token_ids = torch.randint(4, (5, 1, side, side), generator=torch.Generator().manual_seed(1))
    statistics = CodeStatistics(FOUR, CPU)
    original = torch.randint(256, (5, 3, 12, 12), dtype=torch.uint8)
    changed = torch.randint(256, (5, 3, 12, 12), dtype=torch.uint8)
    statistics.add(token_ids, original, changed, None, torch.arange(5))
    errors = (original.int() - changed.int()).square().sum(1, dtype=torch.int32)
    # Each pixel is cut into as many parts as the grid has cells, which lie in one cell each.
    fine = errors.repeat_interleave(side, 1).repeat_interleave(side, 2) / side**2
    of_pixels = token_ids[:, 0].repeat_interleave(12, 1).repeat_interleave(12, 2)
    expected = [float(fine[of_pixels == code].sum() / errors.sum()) for code in range(4)]
    worst = statistics.describe()["grids"][0]["worst_ids"]
    assert [each["share_of_error"] for each in worst] == pytest.approx(sorted(expected)[::-1])
    assert [each["id"] for each in worst] == sorted(range(4), key=lambda n: -expected[n])
    assert sum(each["share_of_tokens"] for each in worst) == pytest.approx(1)
    assert sums_in(errors, (side, side)).sum() == pytest.approx(float(errors.sum()))


def test_the_nearest_patches_of_each_id_are_kept() -> None:
    token_ids = torch.randint(4, (6, 1, 4, 4), generator=torch.Generator().manual_seed(1))
    distances = torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(2))
    statistics, blank = CodeStatistics(FOUR, CPU), torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for first in (0, 2, 4):
        rows = slice(first, first + 2)
        ids = torch.arange(6)[rows]
        statistics.add(token_ids[rows], blank, blank, distances[rows], ids)
    for code in range(4):
        places = (token_ids[:, 0] == code).nonzero().tolist()
        places.sort(key=lambda place: float(distances[*place]))
        found = statistics.patches(0, code)
        assert [[patch.image_id, patch.row, patch.column] for patch in found] == places[:4]


def test_codebooks_and_scales_have_grids_of_their_own() -> None:
    scales = MultiScale(
        size=4,
        scales=[1, 3, 4],
        num_convolutions=2,
        convolution_share=0.5,
        convolution_weight=1.0,
        inner=INNER,
    )
    token_ids = torch.randint(4, (30, 1, 26), generator=torch.Generator().manual_seed(1))
    statistics = added(scales, token_ids)
    found = statistics.describe()["grids"]
    assert [grid["name"] for grid in found] == ["1 x 1", "3 x 3", "4 x 4"]
    assert "left" not in found[0]
    assert statistics.counts()[1].tolist() == token_ids[:, 0, 1:10].flatten().bincount().tolist()
    assert len(statistics.patches(2, 0)) == 4


def test_tokens_of_a_sequence_have_entropies_alone() -> None:
    token_ids = torch.randint(4, (30, 1, 5), generator=torch.Generator().manual_seed(1))
    found = added(FOUR, token_ids).describe()
    assert len(found["left_out"]) == 1
    assert "tokens of a sequence have no place" in found["left_out"][0]
    (grid,) = found["grids"]
    assert (grid["shape"], grid["pairs"], grid["worst_ids"]) == ([1, 5], [], [])
    assert len(grid["position_entropy_bits"][0]) == 5


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"MOST_IDS": 3}, ["what single ids do: 4 are too many"]),
        ({"MOST_POSITIONS": 63}, ["ids by position: 16 x 4 counts are too many"]),
        ({"MOST_PAIRS": 15}, ["neighbors: 1 x 4^2 pairs of ids are too many"]),
        ({"MOST_PATCHED": 3}, ["nearest patches: 4 ids are too many"]),
    ],
)
def test_what_would_be_too_much_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], said: list[str]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(codes, name, value)
    statistics = added(FOUR, torch.zeros(2, 1, 4, 4, dtype=torch.int64))
    found = statistics.describe()
    assert found["left_out"] == said
    assert len(found["grids"]) == ("MOST_IDS" not in limits)
    assert bool(statistics.position_entropies()) is not bool(
        {"MOST_IDS", "MOST_POSITIONS"} & {*limits}
    )
    assert bool(statistics.patches(0, 0) if statistics.has_counts else []) is not bool(
        {"MOST_IDS", "MOST_PATCHED"} & {*limits}
    )


def test_distances_are_between_directions_where_codes_are_compared_so() -> None:
    arguments = {**PLAIN, "size": 4, "dim": 2, "codebook_weight": 1.0, "commitment_weight": 0.25}
    arguments |= {"gradient": "straight_through"}
    latents, z_q = (
        torch.tensor([3.0, 4.0]).view(1, 2, 1, 1),
        torch.tensor([1.0, 0]).view(1, 2, 1, 1),
    )
    plain, normalized = VQ(**arguments), VQ(**arguments | {"l2_normalize": True})
    assert distances_of(plain, latents, z_q).item() == pytest.approx(20)
    assert distances_of(normalized, latents, z_q).item() == pytest.approx(0.4**2 + 0.8**2)
    assert distances_of(plain, torch.zeros(1, 5, 1, 1), z_q) is None
