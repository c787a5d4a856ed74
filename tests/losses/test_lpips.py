"""LPIPS as a loss: mean, precision, weights and the images that it takes."""

from pathlib import Path

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.layers.lpips import LPIPS
from vqtrain.losses.lpips import LPIPSLoss


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Weights of AlexNet that keep the size of what goes through."""
    weights = {}
    for name, parameter in LPIPS(network="alex").features.named_parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim == 4 else 0.1
        values = (scale * torch.randn_like(parameter)).abs_()
        weights[f"features.{name}"] = values - values.mean() if parameter.ndim == 4 else values
    torch.save(weights, tmp_path / "alex.pth")
    return str(tmp_path / "alex.pth")


@pytest.fixture
def loss(file: str) -> LPIPSLoss:
    return LPIPSLoss(network="alex", weights={"alex": file}, in_channels=3, sample_size=(32, 32))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32) * 2 - 1


@pytest.fixture
def reconstruction(images: torch.Tensor) -> torch.Tensor:
    return images + 0.3 * torch.randn_like(images)


def test_loss_is_the_mean_over_the_batch(
    loss: LPIPSLoss, reconstruction: torch.Tensor, images: torch.Tensor
) -> None:
    distances = [
        loss.network(reconstruction[index : index + 1], images[index : index + 1]).item()
        for index in range(3)
    ]
    assert min(distances) > 0
    torch.testing.assert_close(
        loss(reconstruction, images).item(), sum(distances) / 3, rtol=1e-5, atol=0
    )


def test_autocast_does_not_narrow_it(
    loss: LPIPSLoss, reconstruction: torch.Tensor, images: torch.Tensor
) -> None:
    expected = loss(reconstruction, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(reconstruction, images)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_half_precision_is_widened(
    loss: LPIPSLoss, reconstruction: torch.Tensor, images: torch.Tensor
) -> None:
    narrow = reconstruction.bfloat16().requires_grad_()
    found = loss(narrow, images)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(narrow.float(), images))
    found.backward()
    assert narrow.grad is not None
    assert narrow.grad.abs().sum() > 0


def test_float64_stays_float64(
    loss: LPIPSLoss, reconstruction: torch.Tensor, images: torch.Tensor
) -> None:
    expected = loss(reconstruction, images)
    found = loss.double()(reconstruction.double(), images.double())
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("in_channels", "sample_size", "message"),
    [
        (4, (32, 32), "needs images of 1 or 3 channels, got 4 channels"),
        (3, (16,), "needs images of 1 or 3 channels, got 3 channels of size 16"),
        (3, (30, 64), "needs images of at least 31 x 31 px, got 30 x 64"),
    ],
)
def test_samples_that_the_network_does_not_take_are_refused(
    file: str, in_channels: int, sample_size: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        LPIPSLoss(
            network="alex",
            weights={"alex": file},
            in_channels=in_channels,
            sample_size=sample_size,
        )
