"""The experiments that ship: what they say of themselves, and that they run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vqtrain.app.parts.build import Settings, build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import configs_folder
from vqtrain.cli import main
from vqtrain.training.module import TokenizerTraining

EXPERIMENTS = sorted(path.stem for path in (configs_folder() / "experiment").glob("*.yaml"))
SHARDS = "data.train=/d/shards-{000..099}.tar"


def composed(*words: str) -> dict[str, Any]:
    return compose("train", read_command_line(list(words)))


def built(*words: str) -> TokenizerTraining:
    """Build all but the perceptual network, whose weights may not be here."""
    config = composed(*words, "loss/perceptual=none")
    return build_module(config, Settings.of(config))


def count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_can_be_built(name: str) -> None:
    module = built(f"experiment={name}", SHARDS)
    assert module.settings.max_steps > 0


@pytest.mark.parametrize("size", [1024, 16384])
def test_the_vqgan_has_the_papers_sizes(size: int) -> None:
    module = built(f"experiment=vqgan_f16_{size}", SHARDS)
    tokenizer = module.tokenizer
    # Sizes of the published networks; those of the codebook and the 1x1 convolutions around it:
    # size * 256, and 256 * 256 + 256 each.
    assert count(tokenizer.encoder) == 29_298_176
    assert count(tokenizer.decoder) == 42_449_795
    assert count(tokenizer.codebook) == size * 256
    assert count(tokenizer) == 29_298_176 + 42_449_795 + size * 256 + 2 * 65_792
    assert count(module.objective.discriminator) == 2_765_633
    assert tokenizer.token_shape(256, 256) == (16, 16)
    adversarial = module.objective.adversarial
    assert (adversarial.weight.weight, adversarial.adaptive) == (0.8, True)
    assert adversarial.weight.start_step == 250_000


def test_the_launch_line_of_the_vqgan_composes_on_any_machine() -> None:
    config = composed(
        "experiment=vqgan_f16_1024",
        SHARDS,
        "data.val=/d/val.tar",
        "trainer.devices=8",
        "trainer.precision=bf16-mixed",
    )
    assert config["trainer"]["devices"] == 8
    assert config["data"]["train"] == "/d/shards-{000..099}.tar"
    assert config["loss"]["perceptual"] == {
        "kind": "lpips",
        "network": "vgg",
        "weight": 1.0,
        "start_step": 0,
        "ramp_steps": 0,
    }


REDUCED = [
    "experiment=vqgan_f16_1024",
    "encoder.channels=8",
    "decoder.channels=8",
    "encoder.latent_channels=8",
    "decoder.latent_channels=8",
    "codebook.size=16",
    "codebook.dim=8",
    "discriminator.channels=4",
    "discriminator.num_layers=2",
    "data.image_size=32",
    "data.batch_size=2",
    "data.num_workers=0",
    "trainer.max_steps=5",
    "trainer.log_every=1",
    "trainer.validate_every=5",
    "trainer.checkpoint_every=5",
    "trainer.accelerator=cpu",
    "trainer.limit_val=4",
]


@pytest.mark.slow
@pytest.mark.parametrize("perceptual", [False, True], ids=["without", "with-a-file"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_vqgan_trains_at_a_reduced_width(
    perceptual: bool,
    precision: str,
    pictures: Path,
    tmp_path: Path,
    classifier_file: Callable[[str], Path],
) -> None:
    file = f"weights.vgg={classifier_file('vgg')}" if perceptual else "loss.perceptual.weight=0"
    words = [*REDUCED, f"data.train={pictures}", f"trainer.precision={precision}", file]
    assert main(["train", *words, f"run_dir={tmp_path / 'run'}"]) == 0
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["step"] == 5
    assert last["train/skipped_steps"] == 0
    assert last["train/adversarial/weight"] > 0
    assert ("train/generator/perceptual" in last) is perceptual
    # Neither in the checkpoint nor in an optimizer: the network of the perceptual loss is 59 MB.
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert (tmp_path / "run/checkpoints/last.ckpt").stat().st_size < 10e6
    assert not any("perceptual" in name for name in checkpoint["training"]["weights"])
    assert checkpoint["training"]["discriminator"]["weights"]


@pytest.mark.slow
def test_full_metrics_measure_lpips_and_fid_and_leave_nothing_in_the_checkpoint(
    tiny: list[str],
    tmp_path: Path,
    inception_file: Path,
    classifier_file: Callable[[str], Path],
) -> None:
    words = [
        *tiny,
        "metrics=full",
        "data.image_size=32",
        f"weights.alex={classifier_file('alex')}",
        f"weights.inception={inception_file}",
        "trainer.limit_val=4",
        "trainer.max_steps=2",
    ]
    assert main(["train", *words, f"run_dir={tmp_path / 'run'}"]) == 0
    (line,) = [
        json.loads(line)
        for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
        if "val/psnr" in line
    ]
    assert {"val/psnr", "val/ssim", "val/lpips_alex", "val/rfid@4"} <= line.keys()
    assert line["val/lpips_alex"] > 0
    assert line["val/rfid@4"] > 0
    file = tmp_path / "run/checkpoints/best.ckpt"
    assert file.stat().st_size < 1e6
    best = torch.load(file, weights_only=True)["training"]["best"]
    assert best == -line["val/rfid@4"]
