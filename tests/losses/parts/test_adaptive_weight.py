"""The weight that follows gradients, worked out by hand."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.losses.parts.adaptive_weight import AdaptiveWeight, Balance, GradientNorms


def weight(**changes: object) -> AdaptiveWeight:
    arguments = {
        "name": "adversarial",
        "weight": 0.5,
        "start_step": 4,
        "ramp_steps": 0,
        "adaptive": True,
        "min_ratio": 0.0,
        "max_ratio": 10.0,
    }
    return AdaptiveWeight(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data


@pytest.mark.parametrize(
    ("ramp_steps", "expected"),
    [
        (0, [0, 0, 1, 1, 1, 1, 1]),
        (1, [0, 0, 1, 1, 1, 1, 1]),
        (4, [0, 0, 0.25, 0.5, 0.75, 1, 1]),
    ],
)
def test_the_weight_grows_from_the_start_step_on(ramp_steps: int, expected: list[float]) -> None:
    ramped = weight(ramp_steps=ramp_steps)
    steps = range(2, 9)
    assert [ramped.at(step) for step in steps] == [0.5 * share for share in expected]
    assert [ramped.enabled(step) for step in steps] == [
        False,
        False,
        True,
        True,
        True,
        True,
        True,
    ]


def observe(norms: GradientNorms, reconstruction: list[float], term: list[float]) -> None:
    norms.observe(torch.tensor(reconstruction).double(), torch.tensor(term).double())


def values(balance: Balance) -> dict[str, float]:
    return {name: value.item() for name, value in vars(balance).items()}


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("side", ["reconstruction", "term"])
def test_gradients_that_overflow_give_no_weight(side: str, adaptive: bool) -> None:
    observe(norms := GradientNorms(), **{"reconstruction": [1.0], "term": [1.0], side: [math.inf]})
    found = norms.balance(weight(adaptive=adaptive), 5)
    # A bound of the ratio would hide it, and the step would not be skipped.
    assert found.weight.isnan()


def test_the_weight_follows_the_gradients_of_its_own_step() -> None:
    own, norms = weight(ramp_steps=2), GradientNorms()
    observe(norms, [3.0, 4.0], [0.0, 2.0])
    # Norms 5 and 2: 5 / 2.0001, of which the first step of the ramp has 0.5 / 2 = 0.25.
    ratio = 5 / 2.0001
    expected = {"reconstruction_gradient": 5, "gradient": 2, "ratio": ratio}
    weighted = 0.25 * ratio * 2
    expected |= {"weight": 0.25 * ratio, "share": weighted / (5 + weighted)}
    assert values(norms.balance(own, 4)) == pytest.approx(expected, rel=1e-12)
    # Nothing of it is left in the next step.
    observe(norms, [6.0, 8.0], [4.0, 0.0])
    assert norms.balance(own, 5).weight.item() == pytest.approx(0.5 * 10 / 4.0001, rel=1e-12)


@pytest.mark.parametrize("size", [1.0, 30.0, 1e5])
def test_the_share_is_what_the_weight_asks_for(size: float) -> None:
    own, norms = weight(), GradientNorms()
    observe(norms, [3.0, 4.0], [0.0, size])
    # 0.5 times the norm of the reconstruction gradient: 0.5 of 1 + 0.5.
    assert norms.balance(own, 4).share.item() == pytest.approx(1 / 3, rel=1e-4)


def test_the_gradients_of_a_step_are_added_up_before_their_norm() -> None:
    own, norms = weight(), GradientNorms()
    # Reconstruction (3, 0) and (0, 4): their mean is (1.5, 2), of norm 2.5. Adversarial: (1, 0).
    observe(norms, [3.0, 0.0], [2.0, 0.0])
    observe(norms, [0.0, 4.0], [0.0, 0.0])
    found = norms.balance(own, 4)
    assert found.reconstruction_gradient.item() == pytest.approx(2.5)
    assert found.gradient.item() == pytest.approx(1.0)
    assert found.weight.item() == pytest.approx(0.5 * 2.5 / 1.0001)


def test_a_gradient_that_vanishes_does_not_blow_the_weight_up() -> None:
    own, norms = weight(), GradientNorms()
    observe(norms, [3.0, 4.0], [0.0, 0.0])
    # 5 / 0.0001 is more than max_ratio=10.
    expected = {"reconstruction_gradient": 5, "gradient": 0, "ratio": 5e4}
    found = values(norms.balance(own, 4))
    assert found == pytest.approx({**expected, "weight": 5, "share": 0})
    observe(norms, [0.0, 0.0], [0.0, 0.0])
    found = values(norms.balance(own, 5))
    assert (found["ratio"], found["weight"]) == (0, 0)


def test_a_step_that_is_not_finite_leaves_no_trace() -> None:
    own, norms = weight(), GradientNorms()
    observe(norms, [math.nan, 4.0], [math.inf, 0.0])
    norms.balance(own, 4)
    observe(norms, [3.0, 4.0], [0.0, 5.0])
    assert norms.balance(own, 5).ratio.item() == pytest.approx(5 / 5.0001)


def test_a_fixed_weight_is_measured_too_but_does_not_move() -> None:
    own, norms = weight(adaptive=False), GradientNorms()
    observe(norms, [3.0, 4.0], [0.0, 5.0])
    # 0.5 * 5 = 2.5 of 5 + 2.5.
    found = norms.balance(own, 4)
    assert found.share.item() == pytest.approx(1 / 3)
    assert found.weight.item() == 0.5


def test_the_ratio_has_bounds_on_both_sides() -> None:
    norms = GradientNorms()
    for size, ratio in ((1.0, 3.0), (2.0, 5 / 2.0001), (100.0, 0.25)):
        observe(norms, [3.0, 4.0], [size, 0.0])
        found = norms.balance(weight(min_ratio=0.25, max_ratio=3.0), 4)
        assert found.weight.item() == pytest.approx(0.5 * ratio)


RANKS = """
from vqtrain.losses.parts.adaptive_weight import AdaptiveWeight, GradientNorms
weight = AdaptiveWeight(name="adversarial", weight=0.5, start_step=0, ramp_steps=0, adaptive=True,
                        min_ratio=0.0, max_ratio=10.0)
norms = GradientNorms()
parts = [([3.0, 0.0], [2.0, 0.0]), ([0.0, 4.0], [0.0, 0.0])]
for reconstruction, adversarial in parts if world_size == 1 else parts[rank:rank + 1]:
    norms.observe(torch.tensor(reconstruction).double(), torch.tensor(adversarial).double())
torch.save(vars(norms.balance(weight, 0)), f"{folder}/rank-{rank}.pt")
"""


@pytest.mark.ddp
def test_ranks_agree_with_one_that_has_it_all(run_ranks: Callable[[str, int], Path]) -> None:
    one = torch.load(run_ranks(RANKS, 1) / "rank-0.pt")
    two = run_ranks(RANKS, 2)
    assert one["ratio"].item() == pytest.approx(2.5 / 1.0001)
    for rank in range(2):
        assert torch.load(two / f"rank-{rank}.pt") == one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -1.0}, "loss.adversarial.weight must be at least 0 and finite, got -1"),
        ({"weight": math.inf}, "loss.adversarial.weight must be at least 0 and finite, got inf"),
        ({"start_step": -1}, "start_step must be at least 0, got -1"),
        ({"ramp_steps": -1}, "ramp_steps must be at least 0, got -1"),
        ({"max_ratio": 0.0}, "max_ratio must be above 0, got 0"),
        ({"min_ratio": -1.0}, "min_ratio must be at least 0, got -1"),
        ({"min_ratio": 11.0}, "adversarial.max_ratio must be at least min_ratio=11.0, got 10.0"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        weight(**changes)
