"""Scaled gradients against those in float32."""

import torch
from torch import nn

from vqtrain.ops.gradients import gradient_at, gradients_of
from vqtrain.ops.precision import without_autocast

SCALE = 2.0**16


def test_small_gradients_pass_through_half_precision_if_they_are_scaled() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 8), torch.randn(4, 8)
    given = [torch.rand(4, 8) * 1e-8]
    expected = given[0].T @ x
    with torch.autocast("cpu", torch.float16):
        out = layer(x)
        found = gradient_at(layer.weight, [out], given, SCALE)
        assert not gradient_at(layer.weight, [out], given, 1.0).any()
    torch.testing.assert_close(found, expected, rtol=4e-3, atol=1e-11)
    with torch.autocast("cpu", torch.float16):
        loss = 1e-8 * layer(x).float().sum()
        (found,) = gradients_of([loss, 2 * loss], [layer.weight], SCALE)
    expected = 3e-8 * torch.ones(4, 8).T @ x
    torch.testing.assert_close(found, expected, rtol=4e-3, atol=1e-11)


def test_autocast_does_not_narrow_the_gradients_of_what_is_wide() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 8), torch.randn(4, 8, requires_grad=True)
    expected = 2 * (layer(x) @ layer.weight).detach()
    with torch.autocast("cpu", torch.bfloat16):
        with without_autocast(x):
            loss = layer(x).square().sum()
        for found in (*gradients_of([loss], [x], 1.0),):
            torch.testing.assert_close(found, expected)
        with without_autocast(x):
            loss = layer(x).square().sum()
        found = gradient_at(x, [loss], [torch.ones(())], 1.0)
    torch.testing.assert_close(found, expected)
