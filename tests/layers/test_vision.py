"""The frozen vision model against calls of timm itself."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from vqtrain.errors import ConfigError, WeightsError
from vqtrain.layers import vision
from vqtrain.layers.vision import VisionModel, require_images, resized
from vqtrain.weights import without_downloads

NAME = "test_vit.r160_in1k"
SIZE = (32, 48)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The whole model, with its head and the positions of 160 px, as it is published."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return str(path)


def model(file: str | None, **changes: Any) -> VisionModel:
    arguments: dict[str, Any] = {"model": NAME, "size": SIZE, "blocks": [0, 2, 5], "norm": False}
    arguments |= {"class_token": False, "key": "alignment", "given": file}
    return VisionModel(**{**arguments, **changes})


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_maps_and_gradients_are_those_of_timm(file: str, norm: bool, class_token: bool) -> None:
    state = torch.get_rng_state()
    made = model(file, norm=norm, class_token=class_token).train()
    assert torch.equal(torch.get_rng_state(), state)
    assert (made.channels, made.grid) == (64, (2, 3))
    assert not made.state_dict()
    theirs = timm.create_model(
        NAME, pretrained=True, pretrained_cfg_overlay={"file": file}, img_size=SIZE
    ).eval()
    outputs: list[torch.Tensor] = []
    for block in theirs.blocks:
        block.register_forward_hook(lambda _, __, tokens: outputs.append(tokens))
    images = (torch.rand(2, 3, *SIZE) * 2 - 1).requires_grad_()
    theirs(images)  # its mean and its deviation are 0.5
    total = torch.zeros(())
    maps = made(images)
    for found, number in zip(maps, [0, 2, 5], strict=True):
        expected = theirs.norm(outputs[number]) if norm else outputs[number]
        for row in range(2):
            for column in range(3):
                patch = expected[:, 1 + 3 * row + column] + class_token * expected[:, 0]
                torch.testing.assert_close(found[:, :, row, column], patch, rtol=0, atol=1e-5)
                total = total + patch.pow(3).sum()
    (gradient,) = torch.autograd.grad(sum(each.pow(3).sum() for each in maps), images)
    (expected,) = torch.autograd.grad(total, images)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_images_are_resized_normalized_and_repeated(file: str) -> None:
    name = "deit_tiny_distilled_patch16_224"  # its mean and deviation are those of ImageNet
    path = Path(file).with_name("deit.safetensors")
    save_file(timm.create_model(name).state_dict(), path)
    made = model(str(path), model=name, blocks=[0]).double()
    theirs = made.trunk.network
    images = torch.rand(2, 3, 80, 40, dtype=torch.float64) * 2 - 1
    small = interpolate(images, SIZE, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in MEAN_AND_STD)
    expected = theirs.forward_intermediates(
        ((small + 1) / 2 - mean) / std, indices=[0], intermediates_only=True
    )[0]
    (found,) = made(images)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # timm's mean is of float32
    gray = images[:, :1]
    assert torch.equal(made(gray)[0], made(gray.repeat(1, 3, 1, 1))[0])
    assert resized(small, SIZE) is small


MEAN_AND_STD = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def test_what_it_cannot_be_is_refused_before_its_weights_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for changes, message in (
        ({"model": "vit_smal_patch14_dinov2"}, "did you mean 'vit_small_patch14_dinov2'"),
        ({"model": "resnet10t"}, "must be a vision transformer over patches, got 'resnet10t'"),
        ({"blocks": [2, 0]}, r"blocks must be ascending numbers of 0 to 5 for .*, got \[2, 0\]"),
        ({"blocks": [6]}, r"blocks must be ascending numbers of 0 to 5 for .*, got \[6\]"),
        ({"blocks": [-1]}, r"blocks must be ascending numbers .*, got \[-1\]"),
        ({"blocks": []}, r"blocks must be ascending numbers .*, got \[\]"),
        ({"size": (32, 40)}, r"multiple of the patches of test_vit.*, 16 x 16 px, got 32 x 40"),
        (
            {"model": "vit_base_patch16_siglip_224", "class_token": True},
            "model must have a class token, and vit_base_patch16_siglip_224 has none",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            model("nowhere", **changes)
    monkeypatch.setattr(vision, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r'model needs timm: pip install "vqtrain\[timm\]"'):
        model("nowhere")
    with pytest.raises(ConfigError, match="LPIPS needs images of 1 or 3 channels, got 2 channels"):
        require_images("LPIPS", 2, (8, 8))


def test_weights_that_are_missing_or_of_another_model_are_one_line(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(Path(file).read_bytes()[:5000])
    other = tmp_path / "other.safetensors"
    save_file({"no": torch.zeros(1)}, other)
    for given, changes, message in (
        (None, {}, rf"^cannot download model.safetensors from https://.*/timm/{NAME}/.*"),
        ("no", {}, "^weights.alignment must be a file, and there is none at 'no'$"),
        (str(damaged), {}, rf"^cannot load {damaged} into {NAME} of timm: .*"),
        (str(other), {}, rf"^cannot load {other} into {NAME} of timm: .*"),
        (None, {"model": "vit_small_patch16_18x2_224"}, "^timm knows no weights of vit_small_"),
    ):
        with pytest.raises(WeightsError, match=message) as error:
            model(given, **changes)
        assert "weights.alignment" in str(error.value)
        assert "\n" not in str(error.value)


def test_resizing_is_that_of_interpolate_twice_over() -> None:
    images = (torch.rand(2, 3, 20, 31, dtype=torch.float64)).requires_grad_()
    for size in ((7, 48), (20, 12)):
        expected = interpolate(images, size, mode="bilinear", antialias=True)
        torch.testing.assert_close(resized(images, size), expected, rtol=0, atol=1e-12)
        up = torch.randn_like(expected)
        gradients = [torch.autograd.grad(y, images, up) for y in (resized(images, size), expected)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(resized(images, size), resized(images, size).double())


def test_without_downloads_its_weights_are_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with without_downloads() as absent:
        made = model(None)
    assert absent == ["alignment"]
    assert made(torch.zeros(1, 3, *SIZE))[0].isfinite().all()
