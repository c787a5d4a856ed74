"""The distance of Gram matrices against the formula, on torchvision's own network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from vqtrain.errors import ConfigError, WeightsError
from vqtrain.losses.gram import GramLoss

ClassifierFile = Callable[[str], Path]


def build(file: Path, size: tuple[int, int] = (16, 32)) -> GramLoss:
    return GramLoss(weights={"vgg": str(file)}, in_channels=3, sample_size=size)


def test_value_and_gradient_are_those_of_the_formula(classifier_file: ClassifierFile) -> None:
    file = classifier_file("vgg")
    with torch.device("meta"):
        network = torchvision.models.vgg16().features
    stored = torch.load(file, weights_only=True)
    weights = {key: stored[f"features.{key}"] for key in network.state_dict()}
    network.load_state_dict(weights, assign=True)
    network.double().requires_grad_(False)
    images = torch.rand(2, 3, 16, 32, dtype=torch.float64) * 2 - 1
    reconstructions = (images + 0.3 * torch.randn_like(images)).requires_grad_()

    def stages(image: Tensor) -> list[Tensor]:
        """Features of one image after the last activation before each pooling."""
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x, found = (image - shift[:, None, None]) / scale[:, None, None], []
        for layer in network:
            if isinstance(layer, torch.nn.MaxPool2d):
                found.append(x)
            if len(found) < 5:
                x = layer(x.clone())
        return found

    expected = torch.zeros((), dtype=torch.float64)
    weight_of = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
    for mine, theirs in zip(reconstructions, images, strict=True):
        for weight, found, target in zip(weight_of, stages(mine), stages(theirs), strict=True):
            channels, height, width = found.shape
            error = (
                torch.einsum("ahw,bhw->ab", found, found)
                - torch.einsum("ahw,bhw->ab", target, target)
            ) / (height * width)
            expected = expected + weight * error.square().sum() / channels**2 / 2
    loss = build(file).double().train()
    found = loss(reconstructions, images)
    assert found.dtype == torch.float64
    assert expected > 1e-3
    # The shift and the scale of the network are of float32.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(found, reconstructions)
    (expected_gradient,) = torch.autograd.grad(expected, reconstructions)
    scale = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-5 * scale)
    assert not loss.state_dict()
    assert not list(loss.parameters())


def test_what_does_not_fit_is_refused(classifier_file: ClassifierFile) -> None:
    with pytest.raises(ConfigError, match="needs images of at least 16 x 16 px, got 15 x 32"):
        build(classifier_file("vgg"), size=(15, 32))
    with pytest.raises(WeightsError, match="does not hold the weights of vgg"):
        build(classifier_file("alex"))
