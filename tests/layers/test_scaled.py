"""Convolutions of the DALL-E dVAE as they begin; its blocks are tested with its networks."""

import torch

from vqtrain.layers.scaled import convolution


def test_a_convolution_begins_with_the_variance_of_its_inputs() -> None:
    torch.manual_seed(0)
    layer = convolution(64, 200, 3)
    assert layer(torch.zeros(1, 64, 4, 6)).abs().sum() == 0  # and keeps the size
    # 1 / sqrt(64 x 9) = 1 / 24, of 115,200 values
    torch.testing.assert_close(layer.weight.std(), torch.tensor(1 / 24), rtol=0.01, atol=0)
