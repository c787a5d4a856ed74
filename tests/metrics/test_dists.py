"""DISTS against torchmetrics' own function, with random weights and no download."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import deep_image_structure_and_texture_similarity
from torchmetrics.functional.image import dists as module

from vqtrain.layers.lpips import load_lpips
from vqtrain.metrics.dists import DISTS


@pytest.fixture(scope="module")
def metric(classifier_file: Callable[[str], Path]) -> DISTS:
    metric = DISTS()
    metric.load({"vgg": classifier_file("vgg")})
    return metric


def pixels(channels: int = 3, size: int = 32) -> Tensor:
    return torch.randint(0, 256, (3, channels, size, size), dtype=torch.uint8)


def test_distance_is_that_of_torchmetrics(
    metric: DISTS, classifier_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = load_lpips("vgg", str(classifier_file("vgg"))).features
    monkeypatch.setattr(module, "vgg16", lambda **_: SimpleNamespace(features=trunk))
    reconstruction, original = pixels(), pixels()
    with torch.no_grad():
        expected = deep_image_structure_and_texture_similarity(
            reconstruction / 255, original / 255
        ).double()
    found = metric(reconstruction, original)
    assert (found > 1e-3).all()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_gray_image_is_one_of_three_equal_channels(metric: DISTS) -> None:
    reconstruction, original = pixels(channels=1), pixels(channels=1)
    color = [each.repeat(1, 3, 1, 1) for each in (reconstruction, original)]
    assert torch.equal(metric(reconstruction, original), metric(*color))


def test_equal_images_are_at_distance_0(metric: DISTS) -> None:
    original = pixels(size=16)  # the smallest
    torch.testing.assert_close(
        metric(original, original), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-5
    )
