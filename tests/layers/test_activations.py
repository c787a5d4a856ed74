"""Snake against its formula in plain Python."""

import math

import pytest
import torch
from torch import nn

from vqtrain.layers.activations import ACTIVATIONS, Snake, build_activation


def test_snake_has_a_frequency_for_each_channel() -> None:
    snake = Snake(2).double()
    assert snake.alpha.tolist() == [1.0, 1.0]
    snake.alpha.data = torch.tensor([0.5, 3.0]).double()
    x = torch.tensor([[[0.3, -1.2], [2.0, 0.7]]]).double().requires_grad_()
    y = snake(x)
    values = zip([0.5, 0.5, 3.0, 3.0], x.flatten().tolist(), strict=True)
    expected = [
        (v + math.sin(a * v) ** 2 / a, 1 + math.sin(2 * a * v)) for a, v in values
    ]  # and the derivative
    assert y.flatten().tolist() == pytest.approx([value for value, _ in expected], abs=1e-7)
    (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert slope.flatten().tolist() == pytest.approx([slope for _, slope in expected], abs=1e-7)
    assert torch.autograd.gradcheck(snake, (x,))
    assert torch.equal(snake(x[..., None])[..., 0], y)  # any number of axes


def test_each_word_is_an_activation() -> None:
    kinds = {word: type(build_activation(word, 3)) for word in ACTIVATIONS}
    assert kinds == {"relu": nn.ReLU, "elu": nn.ELU, "snake": Snake}
