"""The perceptual term: weight, mean and precision."""

import math

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.layers.lpips import LPIPS
from vqtrain.losses.perceptual import PerceptualLoss


@pytest.fixture
def network() -> LPIPS:
    network = LPIPS(network="alex")
    for parameter in network.parameters():
        # Weights that keep the size of what goes through, and heads that are not negative.
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim == 4 else 0.1
        parameter.copy_(scale * torch.randn_like(parameter)).abs_()
        if parameter.ndim == 4:
            parameter.sub_(parameter.mean())
    return network


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32) * 2 - 1


@pytest.fixture
def reconstruction(images: torch.Tensor) -> torch.Tensor:
    return images + 0.3 * torch.randn_like(images)


def test_loss_is_the_weighted_mean_over_the_batch(
    network: LPIPS, reconstruction: torch.Tensor, images: torch.Tensor
) -> None:
    distances = [
        network(reconstruction[index : index + 1], images[index : index + 1]).item()
        for index in range(3)
    ]
    assert min(distances) > 0
    loss = PerceptualLoss(network=network, weight=0.5)(reconstruction, images)
    torch.testing.assert_close(loss.item(), 0.5 * sum(distances) / 3, rtol=1e-5, atol=0)


def test_autocast_does_not_narrow_it(
    network: LPIPS, reconstruction: torch.Tensor, images: torch.Tensor
) -> None:
    loss = PerceptualLoss(network=network, weight=1.0)
    expected = loss(reconstruction, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(reconstruction, images)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_half_precision_is_widened(
    network: LPIPS, reconstruction: torch.Tensor, images: torch.Tensor
) -> None:
    loss = PerceptualLoss(network=network, weight=1.0)
    narrow = reconstruction.bfloat16().requires_grad_()
    found = loss(narrow, images)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(narrow.float(), images))
    found.backward()
    assert narrow.grad is not None
    assert narrow.grad.abs().sum() > 0


def test_float64_stays_float64(
    network: LPIPS, reconstruction: torch.Tensor, images: torch.Tensor
) -> None:
    loss = PerceptualLoss(network=network, weight=1.0)
    expected = loss(reconstruction, images)
    found = loss.double()(reconstruction.double(), images.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_that_is_not_above_0_is_refused(weight: float, network: LPIPS) -> None:
    with pytest.raises(ConfigError, match=r"loss\.perceptual\.weight must be above 0"):
        PerceptualLoss(network=network, weight=weight)
