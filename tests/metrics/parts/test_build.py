"""From entries to metrics: what is refused, and what is said of them."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.metrics.parts.build import build_metric, build_metrics, describe, load_weights, why_not
from vqtrain.version import __version__

ALL = ["psnr", "ssim", "ms_ssim", "lpips", {"kind": "lpips", "network": "vgg"}, "dists", "fid"]


@pytest.mark.parametrize(
    ("image_size", "channels", "refused"),
    [
        (176, 3, []),
        (175, 3, ["ms_ssim"]),
        (30, 1, ["ms_ssim", "lpips_alex"]),
        (10, 3, ["ssim", "ms_ssim", "lpips_alex", "lpips_vgg", "dists"]),
        (256, 4, ["lpips_alex", "lpips_vgg", "dists", "rfid"]),
    ],
)
def test_what_images_do_not_allow_is_known_before(
    image_size: int, channels: int, refused: list[str]
) -> None:
    reasons = {
        metric.name: why_not(metric, channels, (image_size, image_size))
        for metric in build_metrics(ALL)
    }
    assert [name for name, reason in reasons.items() if reason is not None] == refused


def test_sounds_have_a_psnr_and_clips_the_metrics_of_their_frames() -> None:
    kinds = [*ALL, "temporal_error", "torchmetrics.image:VisualInformationFidelity"]

    def fitting(*size: int) -> list[str]:
        metrics = build_metrics(kinds)
        return [metric.name for metric in metrics if why_not(metric, 3, size) is None]

    assert fitting(64) == ["psnr"]
    of_frames = ["psnr", "ssim", "lpips_alex", "lpips_vgg", "dists"]
    assert fitting(8, 64, 64) == [*of_frames, "temporal_error", "visual_information_fidelity"]
    assert fitting(1, 40, 200)[:5] == of_frames  # a frame has a size, and a clip any length
    assert "temporal_error" not in fitting(1, 40, 200)
    assert "rfid" in fitting(64, 64)
    assert "temporal_error" not in fitting(64, 64)


def test_a_reason_is_a_sentence() -> None:
    assert why_not(build_metric("ms_ssim"), 3, (64, 64)) == (
        "ms_ssim needs images of at least 176 px, these have 64"
    )
    assert why_not(build_metric("fid"), 2, (64, 64)) == (
        "rfid needs images of 1 or 3 channels, these have 2"
    )
    assert why_not(build_metric("ssim"), 2, (64,)) == (
        "ssim takes images, with 2 axes; these have 1"
    )


def test_values_say_how_they_come_about(classifier_file: Callable[[str], Path]) -> None:
    found = describe(build_metric("psnr"), {})
    assert found["library"] == f"vqtrain {__version__}"
    assert "five scales" in describe(build_metric("ms_ssim"), {})["definition"]
    found = describe(build_metric("torchmetrics:MeanSquaredError"), {})
    assert found["library"].startswith("torchmetrics 1.")
    file = classifier_file("alex")
    found = describe(build_metric("lpips"), {"alex": str(file)})
    assert found["weights"] == "alex.pth, not the published file"
    assert found["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_weights_are_loaded_from_the_given_files(classifier_file: Callable[[str], Path]) -> None:
    metrics = build_metrics(["psnr", "lpips"])
    load_weights(metrics, {"alex": str(classifier_file("alex"))}, torch.device("cpu"))
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert metrics[1](pixels, pixels).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "metrics must name at least one"),
        (["psnr", "psnr"], "psnr is named twice"),
        (["pnsr"], "unknown kind 'pnsr', did you mean 'psnr'"),
        ([{"network": "vgg"}], "an entry is a word or"),
        ([{"kind": "lpips", "net": "vgg"}], "unknown key 'net', did you mean 'network'"),
        (["pathlib:Path"], r"must inherit from vqtrain\.metrics\.base\.Metric"),
    ],
)
def test_what_cannot_be_built_is_one_line(
    entries: list[str | Mapping[str, object]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_metrics(entries)
