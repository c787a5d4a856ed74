"""The metrics of an evaluation: what they refuse, and what is said of them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtrain.evaluation.metrics import METRICS, is_lower_better, load, obstacle, rule
from vqtrain.layers.lpips import load_lpips
from vqtrain.metrics.image import ms_ssim
from vqtrain.metrics.lpips import LPIPSDistance

CPU = torch.device("cpu")
NONE = {"alex": None, "vgg": None}


@pytest.mark.parametrize(
    ("image_size", "channels", "refused"),
    [
        (161, 3, []),
        (160, 3, ["ms_ssim"]),
        (30, 1, ["ms_ssim", "lpips_alex"]),
        (10, 3, ["ssim", "ms_ssim", "lpips_alex", "lpips_vgg"]),
        (256, 4, ["lpips_alex", "lpips_vgg", "fid"]),
    ],
)
def test_what_images_do_not_allow_is_known_before(
    image_size: int, channels: int, refused: list[str]
) -> None:
    obstacles = {name: obstacle(name, image_size=image_size, channels=channels) for name in METRICS}
    assert [name for name, found in obstacles.items() if found is not None] == refused


def test_an_obstacle_is_a_sentence() -> None:
    assert obstacle("ms_ssim", image_size=64, channels=3) == (
        "ms_ssim needs images of at least 161 px, these have 64"
    )
    assert obstacle("fid", image_size=64, channels=2) == (
        "fid needs images of 1 or 3 channels, these have 2"
    )


def test_a_metric_without_a_network_is_its_function() -> None:
    assert load("ms_ssim", given=NONE, device=CPU) is ms_ssim
    assert "five scales" in rule("ms_ssim", given=NONE)["definition"]


def test_lpips_is_that_of_the_named_network_and_file(
    classifier_file: Callable[[str], Path],
) -> None:
    file = classifier_file("alex")
    given = {**NONE, "alex": str(file)}
    made, original = torch.randint(0, 256, (2, 2, 3, 32, 32), dtype=torch.uint8)
    expected = LPIPSDistance(network=load_lpips("alex", str(file)))(made, original)
    assert torch.equal(load("lpips_alex", given=given, device=CPU)(made, original), expected)
    found = rule("lpips_alex", given=given)
    assert found["weights"] == "alex.pth, not the published file"
    assert found["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("psnr", False),
        ("ssim", False),
        ("ms_ssim", False),
        ("lpips_alex", True),
        ("lpips_vgg", True),
        ("rfid@500", True),
        ("rfid_adm@500", True),
        ("rfid_adm@9", True),
    ],
)
def test_of_distances_less_is_better(metric: str, lower: bool) -> None:
    assert is_lower_better(metric) == lower
