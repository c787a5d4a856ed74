"""Code lengths of ids whose entropy is known, and a mixture worked out by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.random import Generator
from torch import Tensor

from vqtrain.errors import ConfigError
from vqtrain.generation.entropy import Counts, learn, measure_entropy
from vqtrain.generation.form import TokenForm

GRID = TokenForm(size=8, num_codebooks=1, token_shape=[6, 5])
# Probabilities of the id after each id: 1/2 for one, 1/4 for the next, the rest for all others.
MATRIX = np.full((8, 8), 1 / 24) + np.eye(8) * (1 / 2 - 1 / 24)
MATRIX += np.roll(np.eye(8), 1, axis=1) * (1 / 4 - 1 / 24)
STEP = 0.5 * 1 + 0.25 * 2 + 0.25 * math.log2(24)  # entropy of a row, in bits


@pytest.fixture
def rng() -> Generator:
    return np.random.default_rng(0)


def after(rng: Generator, ids: np.ndarray) -> np.ndarray:
    """Draw an id after each id."""
    return (rng.random(ids.shape)[..., None] > MATRIX.cumsum(axis=1)[ids]).sum(-1).clip(max=7)


def chain(rng: Generator, count: int, length: int, width: int) -> np.ndarray:
    """Draw ids [count, length, width] that depend on the one before along the second axis."""
    rows = [rng.integers(8, size=(count, width))]
    for _ in range(length - 1):
        rows.append(after(rng, rows[-1]))
    return np.stack(rows, axis=1)


def sums(rng: Generator, count: int) -> np.ndarray:
    """Draw ids [count, 6, 5], of which each is the sum of the left and the upper one, modulo 8."""
    ids = rng.integers(8, size=(count, 6, 5))
    for row in range(1, 6):
        for column in range(1, 5):
            ids[:, row, column] = (ids[:, row - 1, column] + ids[:, row, column - 1]) % 8
    return ids


def bits(form: TokenForm, ids: np.ndarray, held_out: int = 300) -> dict[str, float]:
    own = torch.from_numpy(ids)
    found = measure_entropy(form, own[held_out:], own[:held_out], num_positions=10)
    for name, value in found.bits_per_token.items():
        assert found.bits_per_pixel[name] == pytest.approx(value * form.num_tokens / 10)
    return dict(found.bits_per_token)


SKEWED = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8, 0, 0, 0, 0])  # 1.75 bits
DOWN = (3 + 5 * STEP) / 6  # a column begins with one of eight ids
RIGHT = (3 + 4 * STEP) / 5


@pytest.mark.parametrize(
    ("draw", "marginal", "context"),
    [
        (lambda rng: rng.choice(8, p=SKEWED, size=(1300, 6, 5)), 1.75, 1.75),
        (lambda rng: chain(rng, 1300, 6, 5), 3.0, DOWN),
        (lambda rng: chain(rng, 1300, 5, 6).swapaxes(1, 2), 3.0, RIGHT),
        (lambda rng: sums(rng, 1300), 3.0, 10 / 30 * 3),  # the first row and column are random
    ],
    ids=["independent", "upper", "left", "both"],
)
def test_a_source_of_known_entropy_takes_as_many_bits(
    rng: Generator, draw: Callable[[Generator], np.ndarray], marginal: float, context: float
) -> None:
    found = bits(GRID, draw(rng))
    assert found["marginal"] == pytest.approx(marginal, rel=0.02)
    assert found["position"] == pytest.approx(marginal, rel=0.02)
    assert found["context"] == pytest.approx(context, rel=0.02)
    assert context < found["compressed"] < 4


def test_constant_ids_take_no_bits() -> None:
    found = bits(GRID, np.full((2000, 6, 5), 3))
    assert max(found.values()) < 0.02


def test_an_id_that_depends_on_its_place_alone_takes_no_bits_there() -> None:
    found = bits(GRID, np.resize(np.arange(30) % 8, (400, 6, 5)))
    assert found["marginal"] > 2.9
    assert found["position"] < 0.02


@pytest.mark.parametrize(("size", "count"), [(16_384, 300), (4096, 20)])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_few_samples_of_many_ids_never_take_less_than_the_source_has(
    rng: Generator, size: int, count: int, exponent: float
) -> None:
    shares = np.arange(1, size + 1) ** -exponent
    shares /= shares.sum()
    form = TokenForm(size=size, num_codebooks=1, token_shape=[8, 8])
    ids = rng.choice(size, p=shares, size=(count + 100, 8, 8))
    found = bits(form, ids, 100)
    source = -(shares * np.log2(shares)).sum()
    # A mixture that trusted its counts would say far less, or far more than the ids as they are.
    for name in ("marginal", "position", "context"):
        assert 0.98 * source < found[name] < 1.01 * math.log2(size)


def test_a_sequence_has_its_left_neighbors(rng: Generator) -> None:
    form = TokenForm(size=8, num_codebooks=1, token_shape=[20])
    found = bits(form, chain(rng, 1300, 20, 1)[:, :, 0])
    assert found["context"] == pytest.approx((3 + 19 * STEP) / 20, rel=0.02)


def test_the_names_of_ids_and_the_axes_of_a_grid_do_not_matter(rng: Generator) -> None:
    ids = chain(rng, 200, 6, 5)
    found = bits(GRID, ids, 50)
    other = bits(GRID, rng.permutation(8)[ids], 50)
    turned = TokenForm(size=8, num_codebooks=1, token_shape=[5, 6])
    flipped = bits(turned, ids.swapaxes(1, 2).copy(), 50)
    for name in ("marginal", "position", "context"):
        assert other[name] == pytest.approx(found[name], abs=1e-9)
        assert flipped[name] == pytest.approx(found[name], abs=1e-9)


def test_later_codebooks_and_finer_scales_are_told_by_those_before(rng: Generator) -> None:
    first = rng.integers(8, size=(1300, 2, 2))
    second = after(rng, first)
    form = TokenForm(size=8, num_codebooks=2, token_shape=[2, 2, 2])
    found = bits(form, np.stack([first, second], axis=1))
    assert found["position"] == pytest.approx(3, rel=0.02)
    assert found["context"] == pytest.approx((3 + STEP) / 2, rel=0.02)
    # Below each cell there are four of the next scale.
    fine = after(rng, first.repeat(2, axis=1).repeat(2, axis=2))
    scales = TokenForm(size=8, num_codebooks=1, token_shape=[20], grids=[(2, 2), (4, 4)])
    found = bits(scales, np.concatenate([first.reshape(-1, 4), fine.reshape(-1, 16)], axis=1))
    assert found["context"] == pytest.approx((4 * 3 + 16 * STEP) / 20, rel=0.02)


def test_counts_are_those_of_a_context() -> None:
    counts = Counts(np.array([7, 7, 7, 9]), np.array([0, 0, 2, 1]), 3)
    count, total, distinct = counts.find(np.array([7, 7, 9, 8]), np.array([0, 1, 1, 0]))
    assert count.tolist() == [2, 0, 1, 0]
    assert total.tolist() == [3, 3, 1, 0]
    assert distinct.tolist() == [2, 2, 1, 0]


def test_weights_go_to_the_part_that_is_right_in_a_class_and_else_to_that_of_all() -> None:
    # In class 0 the first part always has 1 and the second 1/2, in class 1 the other way round.
    classes = np.append(np.repeat([0, 1], 5000), 2)
    shares = np.where(classes == np.array([[0], [1]]), 1.0, 0.5)
    shares[:, -1] = 1.0, 0.5
    weights = learn(shares, classes, 4)
    assert weights[0, 0] > 0.95
    assert weights[1, 1] > 0.95
    np.testing.assert_allclose(weights[2], 0.5, atol=0.1)  # one was seen of it
    np.testing.assert_allclose(weights[3], 0.5, atol=0.01)  # none


def as_ids(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (as_ids(9, 5, 6), as_ids(3, 6, 5), r"shape \[6, 5\], got \[5, 6\]"),
        (as_ids(1, 6, 5), as_ids(3, 6, 5), "two training samples, got 1"),
        (as_ids(9, 6, 5), as_ids(0, 6, 5), "a held-out sample"),
        (as_ids(9, 6, 5) + 8, as_ids(3, 6, 5), "from 0 to 7, got 8"),
    ],
)
def test_ids_that_do_not_fit_are_refused(train: Tensor, val: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_entropy(GRID, train, val, num_positions=10)
