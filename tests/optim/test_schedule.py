"""The learning rate over the run, against values worked out by hand."""

import math

import pytest

from vqtrain.errors import ConfigError
from vqtrain.optim.schedule import Schedule


def factors(kind: str, warmup_steps: int, max_steps: int) -> list[float]:
    schedule = Schedule(kind=kind, warmup_steps=warmup_steps, max_steps=max_steps)
    return [schedule.factor(step) for step in range(max_steps + 2)]


def test_constant_without_warmup_is_1_from_the_first_step() -> None:
    assert factors("constant", 0, 2) == [1.0, 1.0, 1.0, 1.0]


def test_warmup_grows_by_equal_steps_from_one_share_to_1() -> None:
    assert factors("constant", 4, 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_cosine_falls_from_1_after_the_warmup_to_0_at_the_end() -> None:
    # After two steps of warm-up, progress is 0, 1/4, 1/2, 3/4, 1; cos(pi/4) = sqrt(1/2).
    root = math.sqrt(0.5)
    expected = [0.5, 1.0, 1.0, (1 + root) / 2, 0.5, (1 - root) / 2, 0.0, 0.0]
    assert factors("cosine", 2, 6) == pytest.approx(expected, abs=1e-15)


def test_a_warmup_as_long_as_the_run_leaves_nothing_to_the_cosine() -> None:
    assert factors("cosine", 2, 2) == [0.5, 1.0, 0.0, 0.0]


def test_cosine_without_warmup_begins_at_1() -> None:
    # Progress 0, 1/3, 2/3, 1; cos(pi/3) = 1/2.
    assert factors("cosine", 0, 3) == pytest.approx([1.0, 0.75, 0.25, 0.0, 0.0], abs=1e-15)


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_factors_stay_in_range_over_a_long_run(kind: str) -> None:
    values = factors(kind, 37, 1000)
    assert min(values) >= 0.0
    assert max(values) <= 1.0


def test_a_warmup_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"warmup_steps must be at most 10, .* got 11"):
        Schedule(kind="constant", warmup_steps=11, max_steps=10)


def test_an_empty_run_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.max_steps must be at least 1, got 0"):
        Schedule(kind="constant", warmup_steps=0, max_steps=0)
