"""The weight of a loss term over the run."""

import math

import pytest

from vqtrain.errors import ConfigError
from vqtrain.losses.parts.weight_ramp import Weight


def weight(**changes: float) -> Weight:
    settings = {"weight": 2.0, "start_step": 3, "ramp_steps": 2, **changes}
    return Weight(name="texture", **settings)  # type: ignore[arg-type]  # plain data


def test_the_weight_begins_at_its_step_and_grows_over_its_ramp() -> None:
    assert [weight().at(step) for step in range(2, 6)] == [0.0, 1.0, 2.0, 2.0]
    assert [weight().enabled(step) for step in (2, 3)] == [False, True]
    assert weight(start_step=0, ramp_steps=0).at(0) == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -1.0}, "loss.texture.weight must be at least 0 and finite, got -1.0"),
        ({"weight": math.nan}, "loss.texture.weight must be at least 0 and finite, got nan"),
        ({"start_step": -1}, "loss.texture.start_step must be at least 0, got -1"),
        ({"ramp_steps": -1}, "loss.texture.ramp_steps must be at least 0, got -1"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        weight(**changes)
