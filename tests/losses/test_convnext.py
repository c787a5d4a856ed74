"""The distance in ConvNeXt's logits against torchvision's own network and transform."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.transforms.v2.functional import normalize, resize

from vqtrain.layers import classifiers
from vqtrain.losses.convnext import ConvNeXtLoss


def test_value_and_gradient_are_those_of_torchvision(
    classifier_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "SIZE", (64, 64))  # a twelfth of the time
    file = classifier_file("convnext")
    with torch.device("meta"):
        network = torchvision.models.convnext_small()
    network.load_state_dict(torch.load(file, weights_only=True), assign=True)
    network.eval().requires_grad_(False)  # without stochastic depth

    def logits(images: Tensor) -> Tensor:
        pixels = resize((images + 1) / 2, [64, 64], antialias=True)
        return network(normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))

    images = torch.rand(1, 3, 12, 12) * 2 - 1
    reconstructions = (images + 0.3 * torch.randn_like(images)).requires_grad_()
    expected = (logits(reconstructions) - logits(images)).square().sum() / 1000
    (expected_gradient,) = torch.autograd.grad(expected, reconstructions)
    loss = ConvNeXtLoss(weights={"convnext": str(file)}, in_channels=3, sample_size=(12, 12))
    found = loss.train()(reconstructions, images)
    (gradient,) = torch.autograd.grad(found, reconstructions)
    assert expected > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    scale = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-3 * scale)
