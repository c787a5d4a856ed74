"""The distance in ResNet50's logits against torchvision's own network and transform."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.transforms.v2.functional import normalize, resize

from vqtrain.errors import ConfigError, WeightsError
from vqtrain.layers import classifiers
from vqtrain.losses.resnet50 import ResNet50Loss

ClassifierFile = Callable[[str], Path]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def loss(classifier_file: ClassifierFile) -> ResNet50Loss:
    return build(str(classifier_file("resnet50")))


def build(file: str | None, in_channels: int = 3, size: tuple[int, ...] = (16, 24)) -> ResNet50Loss:
    return ResNet50Loss(weights={"resnet50": file}, in_channels=in_channels, sample_size=size)


def pair() -> tuple[Tensor, Tensor]:
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    return (images + 0.3 * torch.randn_like(images)).requires_grad_(), images


def test_value_and_gradient_are_those_of_torchvision(
    loss: ResNet50Loss, classifier_file: ClassifierFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert classifiers.SIZE == (224, 224)
    monkeypatch.setattr(classifiers, "SIZE", (64, 64))  # a twelfth of the time
    with torch.device("meta"):
        network = torchvision.models.resnet50()
    weights = torch.load(classifier_file("resnet50"), weights_only=True)
    network.load_state_dict(weights, assign=True)
    network.double().eval().requires_grad_(False)

    def logits(images: Tensor) -> Tensor:
        pixels = resize((images + 1) / 2, [64, 64], antialias=True)
        return network(normalize(pixels, MEAN, STD))

    reconstructions, images = (each.detach().double() for each in pair())
    reconstructions.requires_grad_()
    expected = (logits(reconstructions) - logits(images)).square().sum() / (2 * 1000)
    (expected_gradient,) = torch.autograd.grad(expected, reconstructions)
    found = copy.deepcopy(loss).double().train()(reconstructions, images)
    (gradient,) = torch.autograd.grad(found, reconstructions)
    assert expected > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)  # our mean is of float32
    scale = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-4 * scale)


def test_it_is_frozen_and_of_float32_under_autocast(
    loss: ResNet50Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "SIZE", (32, 32))
    reconstructions, images = pair()
    assert not loss.state_dict()
    assert not list(loss.parameters())
    expected = loss(reconstructions[:1], images[:1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(reconstructions[:1], images[:1])
    assert torch.equal(found, expected)
    gray = [each[:1, :1] for each in (reconstructions, images)]
    assert torch.equal(loss(*gray), loss(*(each.expand(-1, 3, -1, -1) for each in gray)))


def test_what_does_not_fit_is_one_line(classifier_file: ClassifierFile, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="resnet50 needs images of 1 or 3 channels, got 2 chann"):
        build(None, in_channels=2)
    with pytest.raises(ConfigError, match="got 3 channels of size 16"):
        build(None, size=(16,))
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"no weights")
    squeeze = classifier_file("squeeze")
    for file, message in (
        (tmp_path / "none.pth", r"^weights.resnet50 must be a file, and there is none at .*$"),
        (damaged, f"^cannot read {damaged}: it is damaged or holds no weights$"),
        (
            squeeze,
            f"^cannot use {squeeze}: it does not hold the weights of resnet50, ",
        ),
    ):
        with pytest.raises(WeightsError, match=message) as error:
            build(str(file))
        assert "\n" not in str(error.value)
