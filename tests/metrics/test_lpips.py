"""LPIPS on pixels; the network itself is compared with the lpips package in its own test."""

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqtrain.errors import ConfigError
from vqtrain.layers import lpips
from vqtrain.metrics.lpips import LPIPS


@pytest.fixture
def network() -> lpips.LPIPS:
    network = lpips.LPIPS(network="squeeze")
    for parameter in network.parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim == 4 else 0.1
        parameter.copy_(scale * torch.randn_like(parameter))
    for head in network.heads:
        head.abs_()
    return network


def metric_of(network: lpips.LPIPS) -> LPIPS:
    metric = LPIPS(network="squeeze")
    metric.network = network.float()
    return metric


def pixels(channels: int = 3, batch: int = 2) -> Tensor:
    return torch.randint(0, 256, (batch, channels, 32, 32), dtype=torch.uint8)


def test_distance_is_that_of_the_network_on_images(network: lpips.LPIPS) -> None:
    reconstruction, original = pixels(), pixels()
    found = metric_of(network)(reconstruction, original)
    # Pixels 0..255 are images in [-1, 1]: 2 x / 255 - 1.
    expected = network.double()(
        2 * reconstruction.double() / 255 - 1, 2 * original.double() / 255 - 1
    )
    assert found.dtype == torch.float64
    assert found.shape == (2,)
    assert (expected > 1e-3).all()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_an_image_does_not_depend_on_its_batch(network: lpips.LPIPS) -> None:
    distance = metric_of(network)
    reconstruction, original = pixels(batch=3), pixels(batch=3)
    together = distance(reconstruction, original)
    alone = [distance(reconstruction[[index]], original[[index]]).item() for index in range(3)]
    torch.testing.assert_close(together.tolist(), alone, rtol=1e-5, atol=0)


def test_equal_images_are_at_distance_0(network: lpips.LPIPS) -> None:
    original = pixels(channels=1)
    assert metric_of(network)(original, original).tolist() == [0.0, 0.0]


def test_precision_is_that_of_float32_whatever_surrounds_it(network: lpips.LPIPS) -> None:
    distance = metric_of(network)
    reconstruction, original = pixels(), pixels()
    expected = distance(reconstruction, original)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(distance(reconstruction, original), expected)
    assert torch.equal(metric_of(network.double())(reconstruction, original), expected)


def test_the_network_moves_along(network: lpips.LPIPS) -> None:
    distance = metric_of(network)
    distance.to(torch.device("meta"))
    assert {tensor.device.type for tensor in distance.network.state_dict().values()} == {"meta"}


def test_wrong_input_is_refused(network: lpips.LPIPS) -> None:
    distance = metric_of(network)
    with pytest.raises(ConfigError, match="1 or 3 channels, these have 4"):
        distance(pixels(channels=4), pixels(channels=4))
    # Without the checks that the tests switch on for every annotation, as in a training run.
    unchecked = inspect.unwrap(LPIPS.__call__)
    with pytest.raises(TypeError, match=r"uint8 pixels, got torch\.float32"):
        unchecked(distance, pixels(), pixels().float())
    with pytest.raises(ValueError, match=r"\[1, 3, 32, 32\] and \[2, 3, 32, 32\]"):
        unchecked(distance, pixels(batch=1), pixels())


def test_network_and_weights_are_the_named_ones(classifier_file: Callable[[str], Path]) -> None:
    file = classifier_file("alex")
    metric = LPIPS(network="alex")
    assert (metric.name, metric.title, metric.weights) == ("lpips_alex", "LPIPS alex", ("alex",))
    metric.load({"alex": file})
    reconstruction, original = pixels(), pixels()
    expected = metric_of(lpips.load_lpips("alex", str(file)))(reconstruction, original)
    assert torch.equal(metric(reconstruction, original), expected)
    with pytest.raises(
        ConfigError, match="network must be one of vgg, alex, squeeze, got 'resnet'"
    ):
        LPIPS(network="resnet")
