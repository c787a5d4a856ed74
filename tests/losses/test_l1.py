"""The error against values worked out by hand."""

import torch

from vqtrain.losses.l1 import L1

# The differences are 1, 0, -2, 0.5: absolute mean 3.5 / 4 = 0.875, square mean 5.25 / 4 = 1.3125.
RECONSTRUCTIONS = torch.tensor([[[1.0, 0.0, -1.0, 0.5]]])
SAMPLES = torch.tensor([[[0.0, 0.0, 1.0, 0.0]]])


def test_value_and_gradient_by_hand_whatever_the_axes() -> None:
    for shape in ((1, 1, 4), (1, 1, 2, 2), (1, 1, 2, 1, 2)):
        reconstructions = RECONSTRUCTIONS.reshape(shape).clone().requires_grad_()
        loss = L1()(reconstructions, SAMPLES.reshape(shape))
        assert loss.item() == 0.875
        loss.backward()
        assert reconstructions.grad is not None
        # The gradient of each value is sign(d) / 4.
        assert reconstructions.grad.flatten().tolist() == [0.25, 0.0, -0.25, 0.25]


def test_half_precision_is_widened() -> None:
    assert L1()(RECONSTRUCTIONS.half(), SAMPLES.half()).dtype == torch.float32
    assert L1()(RECONSTRUCTIONS.double(), SAMPLES.double()).dtype == torch.float64
