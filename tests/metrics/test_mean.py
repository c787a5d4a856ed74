"""The mean over images and ranks."""

import math

import pytest
import torch
from torch import Tensor

from vqtrain.metrics import mean as module
from vqtrain.metrics.mean import Mean

CPU = torch.device("cpu")
EVERY = torch.tensor([True, True, True])


def test_mean_is_over_images_and_not_over_batches() -> None:
    mean = Mean(device=CPU)
    mean.update(torch.tensor([1.0, 2.0, 3.0]), EVERY)
    mean.update(torch.tensor([10.0]), EVERY[:1])
    assert mean.compute() == 4.0  # 16 / 4, where the mean of the two means is 6
    assert mean.state().tolist() == [16.0, 4.0]


def test_masked_values_are_ignored_even_if_they_are_not_numbers() -> None:
    mean = Mean(device=CPU)
    mean.update(torch.tensor([1.0, math.nan, math.inf]), torch.tensor([True, False, False]))
    assert mean.state().tolist() == [1.0, 1.0]


def test_a_number_that_is_none_is_not_hidden() -> None:
    mean = Mean(device=CPU)
    mean.update(torch.tensor([1.0, math.nan, 2.0]), EVERY)
    assert math.isnan(mean.compute())


def test_sums_are_kept_in_float64() -> None:
    mean = Mean(device=CPU)
    mean.update(torch.tensor([2.0**24, 1.0, 1.0]), EVERY)  # float32 would lose the ones
    assert mean.state().tolist() == [2.0**24 + 2.0, 3.0]


def test_the_mean_of_nothing_is_not_a_number() -> None:
    assert math.isnan(Mean(device=CPU).compute())


def test_ranks_are_reduced_by_sum_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce_sum(state: Tensor) -> Tensor:
        return state + torch.tensor([4.0, 3.0], dtype=torch.float64)  # a rank with three images

    monkeypatch.setattr(module, "all_reduce_sum", all_reduce_sum)
    mean = Mean(device=CPU)
    mean.update(torch.tensor([8.0]), EVERY[:1])
    assert mean.compute() == 3.0  # (8 + 4) / (1 + 3)
    assert mean.compute() == 3.0  # reducing changes no state


def test_the_state_is_a_copy() -> None:
    mean = Mean(device=CPU)
    before = mean.state()
    mean.update(torch.tensor([1.0]), EVERY[:1])
    assert before.tolist() == [0.0, 0.0]
