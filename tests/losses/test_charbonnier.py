"""The smooth absolute error against values by hand."""

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.losses.charbonnier import Charbonnier


def test_value_and_gradient_are_those_by_hand() -> None:
    reconstructions = torch.tensor([[[0.4, -0.5, 0.1]]], requires_grad=True)
    samples = torch.tensor([[[0.0, 0.7, 0.1]]])
    loss = Charbonnier(eps=0.3)(reconstructions, samples)
    # The roots of 0.16 + 0.09, 1.44 + 0.09 and 0 + 0.09.
    torch.testing.assert_close(loss, torch.tensor((0.5 + 1.53**0.5 + 0.3) / 3))
    loss.backward()
    expected = torch.tensor([[[0.4 / 0.5, -1.2 / 1.53**0.5, 0.0]]]) / 3
    torch.testing.assert_close(reconstructions.grad, expected)
    half = Charbonnier(eps=1e-3)(samples.bfloat16(), samples.bfloat16())
    torch.testing.assert_close(half, torch.tensor(1e-3))


@pytest.mark.parametrize("eps", [0.0, -1.0, float("inf")])
def test_an_eps_that_is_not_above_0_is_refused(eps: float) -> None:
    with pytest.raises(ConfigError, match="eps must be"):
        Charbonnier(eps=eps)
