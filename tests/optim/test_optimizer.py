"""One step of a network's optimizer against the same step by hand."""

import pytest
import torch
from torch import nn

from vqtrain.errors import ConfigError
from vqtrain.optim.optimizer import NetworkOptimizer
from vqtrain.optim.settings import OptimSettings


def settings(**changes: object) -> OptimSettings:
    values = {
        "lr": 0.1,
        "betas": [0.0, 0.0],
        "weight_decay": 0.0,
        "warmup_steps": 2,
        "schedule": "constant",
    }
    return OptimSettings(**{**values, **changes})  # type: ignore[arg-type]  # plain data


def test_the_schedule_begins_with_the_steps_of_the_network() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = NetworkOptimizer(
        parameters=[("weight", parameter)], settings=settings(), clip=None, steps=range(10, 20)
    )
    # A warm-up of two steps from step 10 on: half the rate, then all of it.
    assert [optimizer.learning_rate_at(step) for step in (10, 11, 12, 19)] == [0.05, 0.1, 0.1, 0.1]


def test_a_step_clips_and_updates_by_the_rate_of_its_number() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = NetworkOptimizer(
        parameters=[("bias", parameter)], settings=settings(), clip=1.0, steps=range(4)
    )
    parameter.grad = torch.tensor([3.0, 4.0])
    norm = optimizer.gradient_norm()
    assert norm.item() == pytest.approx(5.0)
    optimizer.step(0, norm, lambda inner: inner.step())
    # Clipped to 3/5 and 4/5, of which Adam without memory takes the signs: minus 0.05 each.
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]), rtol=1e-4, atol=0)
    torch.testing.assert_close(parameter.detach(), torch.tensor([0.95, 1.95]))


def test_a_warmup_longer_than_its_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_steps"):
        NetworkOptimizer(
            parameters=[("weight", nn.Parameter(torch.zeros(1)))],
            settings=settings(warmup_steps=3),
            clip=None,
            steps=range(8, 10),
        )
