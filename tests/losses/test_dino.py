"""The distance of patch tokens against timm's own tokens."""

from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from vqtrain.build import build
from vqtrain.errors import ConfigError, WeightsError
from vqtrain.losses.dino import DINOLoss

NAME = "test_vit.r160_in1k"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return str(path)


def make(file: str | None, **changes: Any) -> DINOLoss:
    arguments = {"model": NAME, "size": 32, "blocks": [2, 5], "in_channels": 3}
    arguments |= {"sample_size": (24, 16), "weights": {"perceptual": file}}
    return build("loss", "dino", {**arguments, **changes}, where="loss.perceptual")  # type: ignore[return-value]


def test_value_and_gradient_are_those_of_timm(file: str) -> None:
    theirs = timm.create_model(
        NAME, pretrained=True, pretrained_cfg_overlay={"file": file}, img_size=32
    ).eval()
    outputs: list[torch.Tensor] = []
    for number in (2, 5):
        theirs.blocks[number].register_forward_hook(lambda _, __, x: outputs.append(theirs.norm(x)))
    images = torch.rand(2, 3, 24, 16) * 2 - 1
    reconstructions = (images + 0.5 * torch.randn_like(images)).requires_grad_()
    for each in (reconstructions, images):
        theirs(interpolate(each, (32, 32), mode="bilinear", antialias=True))  # mean and std are 0.5
    total = torch.zeros(())
    for mine, target in zip(outputs[:2], outputs[2:], strict=True):
        for image in range(2):
            for token in range(1, 5):
                a, b = mine[image, token], target[image, token]
                total = total + 1 - a @ b / (a.norm() * b.norm())
    expected = total / (2 * 2 * 4)
    loss = make(file).train()
    found = loss(reconstructions, images)
    assert expected > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    (gradient,) = torch.autograd.grad(found, reconstructions)
    (expected_gradient,) = torch.autograd.grad(expected, reconstructions)
    scale = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-3 * scale)
    assert not loss.state_dict()
    assert not list(loss.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(reconstructions, images), found)


def test_what_does_not_fit_is_one_line(file: str) -> None:
    for changes, message in (
        (
            {"blocks": [6]},
            r"^loss.perceptual=dino: loss.perceptual.blocks must be",
        ),
        ({"size": 0}, r"loss.perceptual.size must be at least 1, got 0"),
        ({"size": 20}, r"loss.perceptual.size must be a multiple of the patches"),
        ({"model": "resnet10t"}, r"loss.perceptual.model must be a vision transformer"),
        ({"sample_size": (24,)}, r"needs images of 1 or 3 channels, got 3 channels of size 24"),
    ):
        with pytest.raises(ConfigError, match=message):
            make(file, **changes)
    with pytest.raises(WeightsError, match=r"^weights.perceptual must be a file"):
        make("nowhere")
