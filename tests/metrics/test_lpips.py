"""LPIPS on pixels; the network itself is compared with the lpips package in its own test."""

import inspect

import pytest
import torch
from torch import Tensor

from vqtrain.errors import ConfigError
from vqtrain.layers.lpips import LPIPS
from vqtrain.metrics.lpips import LPIPSDistance


@pytest.fixture
def network() -> LPIPS:
    network = LPIPS(network="squeeze")
    for parameter in network.parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim == 4 else 0.1
        parameter.copy_(scale * torch.randn_like(parameter))
    for head in network.heads:
        head.abs_()
    return network


def pixels(channels: int = 3, batch: int = 2) -> Tensor:
    return torch.randint(0, 256, (batch, channels, 32, 32), dtype=torch.uint8)


def test_distance_is_that_of_the_network_on_images(network: LPIPS) -> None:
    reconstruction, original = pixels(), pixels()
    found = LPIPSDistance(network=network)(reconstruction, original)
    # Pixels 0..255 are images in [-1, 1]: 2 x / 255 - 1.
    expected = network.double()(
        2 * reconstruction.double() / 255 - 1, 2 * original.double() / 255 - 1
    )
    assert found.dtype == torch.float64
    assert found.shape == (2,)
    assert (expected > 1e-3).all()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_an_image_does_not_depend_on_its_batch(network: LPIPS) -> None:
    distance = LPIPSDistance(network=network)
    reconstruction, original = pixels(batch=3), pixels(batch=3)
    together = distance(reconstruction, original)
    alone = [distance(reconstruction[[index]], original[[index]]).item() for index in range(3)]
    torch.testing.assert_close(together.tolist(), alone, rtol=1e-5, atol=0)


def test_equal_images_are_at_distance_0(network: LPIPS) -> None:
    original = pixels(channels=1)
    assert LPIPSDistance(network=network)(original, original).tolist() == [0.0, 0.0]


def test_precision_is_that_of_float32_whatever_surrounds_it(network: LPIPS) -> None:
    distance = LPIPSDistance(network=network)
    reconstruction, original = pixels(), pixels()
    expected = distance(reconstruction, original)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(distance(reconstruction, original), expected)
    assert torch.equal(LPIPSDistance(network=network.double())(reconstruction, original), expected)


def test_the_network_moves_along(network: LPIPS) -> None:
    distance = LPIPSDistance(network=network).to(torch.device("meta"))
    assert {tensor.device.type for tensor in distance.network.state_dict().values()} == {"meta"}


def test_wrong_input_is_refused(network: LPIPS) -> None:
    distance = LPIPSDistance(network=network)
    with pytest.raises(ConfigError, match="1 or 3 channels, got 4"):
        distance(pixels(channels=4), pixels(channels=4))
    # Without the checks that the tests switch on for every annotation, as in a training run.
    unchecked = inspect.unwrap(LPIPSDistance.__call__)
    with pytest.raises(TypeError, match=r"uint8 pixels, got torch\.float32"):
        unchecked(distance, pixels(), pixels().float())
    with pytest.raises(ValueError, match=r"\[1, 3, 32, 32\] and \[2, 3, 32, 32\]"):
        unchecked(distance, pixels(batch=1), pixels())
