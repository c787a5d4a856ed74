"""A mix of errors against values worked out by hand."""

import math

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.losses.mix import Mix

RECONSTRUCTION = torch.tensor([[[[1.0, 0.0], [-1.0, 0.5]]]])
IMAGES = torch.tensor([[[[0.0, 0.0], [1.0, 0.0]]]])
# The differences are 1, 0, -2, 0.5: absolute mean 3.5 / 4 = 0.875, square mean 5.25 / 4 = 1.3125.


@pytest.mark.parametrize(
    ("l1", "l2", "expected"),
    [
        (1.0, 0.0, 0.875),
        (0.0, 1.0, 1.3125),
        (6.0, 0.0, 5.25),  # 6 * 0.875
        (1.0, 4.0, 6.125),  # 0.875 + 4 * 1.3125
    ],
)
def test_loss_equals_the_hand_worked_value(l1: float, l2: float, expected: float) -> None:
    loss = Mix(l1=l1, l2=l2)(RECONSTRUCTION, IMAGES)
    assert loss.item() == expected  # every number on the way is exact in binary


def test_gradient_equals_the_hand_worked_value() -> None:
    reconstruction = RECONSTRUCTION.clone().requires_grad_()
    Mix(l1=4.0, l2=8.0)(reconstruction, IMAGES).backward()
    # 4 * sign(d) / 4 + 8 * 2 * d / 4 = sign(d) + 4 d at d = 1, 0, -2, 0.5.
    expected = torch.tensor([[[[5.0, 0.0], [-9.0, 3.0]]]])
    torch.testing.assert_close(reconstruction.grad, expected)


def test_loss_is_a_mean_whatever_the_batch() -> None:
    loss = Mix(l1=1.0, l2=1.0)
    batch = RECONSTRUCTION.repeat(3, 2, 1, 1), IMAGES.repeat(3, 2, 1, 1)
    torch.testing.assert_close(loss(*batch), loss(RECONSTRUCTION, IMAGES))


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_loss_is_computed_in_at_least_float32(dtype: torch.dtype, result: torch.dtype) -> None:
    loss = Mix(l1=1.0, l2=1.0)
    reconstruction = torch.ones(1, 1, 32, 32, dtype=dtype)
    images = torch.full((1, 1, 32, 32), 1.0 - 1.0 / 256, dtype=dtype)  # exact in all four
    value = loss(reconstruction, images)
    assert value.dtype == result
    # Neither this sum nor the sum of 1024 differences is a float16 or a bfloat16.
    assert value.item() == 1.0 / 256 + 1.0 / 256**2


def test_a_term_of_share_0_is_not_computed() -> None:
    # The square of 1e30 is infinite in float32, and 0 times infinity would be NaN.
    loss = Mix(l1=1.0, l2=0.0)
    huge = torch.full((1, 1, 1, 1), 1e30)
    assert loss(huge, torch.zeros(1, 1, 1, 1)).item() == huge.item()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l1": -1.0, "l2": 1.0}, "l1 must be at least 0 and finite, got -1.0"),
        ({"l1": 1.0, "l2": math.nan}, "l2 must be at least 0 and finite, got nan"),
        ({"l1": 0.0, "l2": 0.0}, "must not both be 0"),
    ],
)
def test_impossible_shares_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mix(**settings)
