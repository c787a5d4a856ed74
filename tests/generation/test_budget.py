"""From a budget to sizes and steps, against the numbers of arXiv:2203.15556."""

from typing import NoReturn

import pytest

from vqtrain.errors import ConfigError
from vqtrain.generation.base import TokenModel
from vqtrain.generation.budget import Sizes, sizes_of, steps_of
from vqtrain.generation.form import TokenForm


class Costing(TokenModel):
    """A model of which a sample costs 100 operations."""

    flops = 100
    form = TokenForm(size=16, num_codebooks=1, token_shape=(6,))

    def loss(self, *_: object) -> NoReturn:
        """Refuse: only the cost is of interest."""
        raise AssertionError

    nats = sample = loss


def test_a_budget_is_spent_on_20_tokens_a_parameter() -> None:
    # 6 operations a token: with N = 12 * 3 * 96^2 parameters, 6 N * 20 N = 1.3e13.
    parameters = 12 * 3 * 96**2
    assert sizes_of(120.0 * parameters**2) == Sizes(depth=3, dim=96)
    assert sizes_of(120.0 * (12 * 12 * 384**2) ** 2) == Sizes(depth=12, dim=384)
    assert sizes_of(1.0) == Sizes(depth=1, dim=64)


def test_a_budget_buys_steps_by_the_cost_of_the_model() -> None:
    assert steps_of(Costing(), 8e4, 8) == 100
    assert steps_of(Costing(), 8.4e4, 4) == 210


def test_a_budget_that_is_too_small_is_refused_with_the_least_one() -> None:
    words = "buys 99 steps of 8 samples of 6 ids out of 16, at least 100 .* use budget=8.0e"
    with pytest.raises(ConfigError, match=words):
        steps_of(Costing(), 7.99e4, 8)
    for budget in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="positive number of operations"):
            sizes_of(budget)
