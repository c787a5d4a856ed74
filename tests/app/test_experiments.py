"""The experiments that ship: what they say of themselves, and that they run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.settings import Settings
from vqtrain.build import configs_folder
from vqtrain.cli import main
from vqtrain.training.module import TokenizerTraining
from vqtrain.weights import without_downloads

EXPERIMENTS = sorted(path.stem for path in (configs_folder() / "experiment").glob("*.yaml"))
SHARDS = "data.train=/d/shards-{000..099}.tar"


def composed(*words: str) -> dict[str, Any]:
    return compose("train", read_command_line(list(words)))


def built(config: dict[str, Any]) -> TokenizerTraining:
    """Build all of a run without memory for its weights."""
    with torch.device("meta"):
        return build_module(config, Settings.of(config))


def count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


# Parameters of encoder and decoder as published, and the grid of tokens. Differences are those of
# the experiment's file: of TiTok, (12 + 1) * dim of the projections to and from 12 channels, which
# are the tokenizer's here, and the positions that are merged.
PUBLISHED = {
    "vqgan_f16_1024": (29_298_176, 42_449_795, (16, 16)),
    "vqgan_f16_16384": (29_298_176, 42_449_795, (16, 16)),
    "vqgan_f8_gumbel": (26_345_728, 38_316_163, (32, 32)),
    "llamagen_vq16": (29_298_176, 42_449_795, (16, 16)),
    "llamagen_vq8": (28_559_232, 41_415_171, (32, 32)),
    "ibq_16384": (46_752_256, 59_903_875, (16, 16)),
    "rqvae_8x8x4": (41_101_312, 58_974_595, (4, 8, 8)),
    # With the 3x3 convolutions next to the codebook.
    "var_16": (44_107_872 + 9_248, 64_653_923 + 9_248, (680,)),
    "dalle_dvae": (53_786_240 - 2049 * 8192, 43_829_766 - 8193 * 128, (32, 32)),
    "vqvae2": (364_160, 364_035, (5 * 32, 32)),
    "vqganplus_12bit": (25_151_936, 29_593_603, (16, 16)),
    "maskbit_lfq_14bit": (25_126_286, 29_363_203, (16, 16)),
    "openmagvit2_256": (49_751_442, 65_376_387, (16, 16)),
    "simvq_65k": (24_282_496, 39_851_907, (16, 16)),
    "fsq_64k": (24_282_496, 39_851_907, (16, 16)),
    "bsq_vit_18bit": (85_991_424, 88_796_352, (32, 32)),
    "vitvqgan_small": (25_306_624, 25_306_115, (32, 32)),
    "vitvqgan_base": (85_176_576, 85_175_811, (32, 32)),
    "titok_s128": (25_818_636 - (12 * 512 + 12) - 512, 25_812_820, (128,)),
    "titok_b64": (85_904_652 - (12 * 768 + 12) - 768, 85_895_508, (64,)),
    "titok_l32": (303_410_188 - (12 * 1024 + 12) - 1024, 303_397_716, (32,)),
    "jukebox_bottom": (441_856, 458_177, (393_216 // 8,)),
    "videogpt_ucf101": (11_286_960, 9_731_283, (4, 32, 32)),
    "magvit2_video_17f": (144_865_298, 225_682_051, (5, 16, 16)),
    "encodec_24khz": (7_425_792, 7_426_018, (32, 75)),
}
# And of the whole tokenizers, with codebook and 1x1 convolutions around it.
TOTALS = {
    "vqgan_f16_1024": 29_298_176 + 42_449_795 + 1024 * 256 + 2 * (256 * 256 + 256),
    # Scores are a layer of 256 to 8,192.
    "vqgan_f8_gumbel": 26_345_728 + 38_316_163 + 131_584 + 2_105_344 + 8192 * 256,
    "llamagen_vq16": 29_298_176 + 42_449_795 + 16384 * 8 + (256 * 8 + 8) + (8 * 256 + 256),
    "llamagen_vq8": 28_559_232 + 41_415_171 + 16384 * 8 + (256 * 8 + 8) + (8 * 256 + 256),
    "ibq_16384": 46_752_256 + 59_903_875 + 131_584 + 16384 * 256,
    "rqvae_8x8x4": 41_101_312 + 58_974_595 + 131_584,  # its codes are averages, no parameters
    "var_16": 44_107_872 + 64_653_923 + 168_064 + 2 * 9_248 + 2 * (32 * 32 + 32),
    # The bias of its convolution of codes is in the codes.
    "dalle_dvae": 53_786_240 + 43_829_766 - 128 + 2049 * 2048 + 129 * 128,
    "vqvae2": 1_388_867 + 2 * 129 * 128,
    "vqganplus_12bit": 25_151_936 + 29_593_603 + 4096 * 64 + 2 * (64 * 64 + 64),
    "simvq_65k": 24_282_496 + 39_851_907 + 3 * (128 * 128 + 128),
    "bsq_vit_18bit": 174_816_210,
    "vitvqgan_small": 50_908_195,
    "vitvqgan_base": 170_664_483,
    "titok_s128": 51_686_752,
    "titok_b64": 171_858_528,
    "titok_l32": 606_869_344,
    "videogpt_ucf101": 21_141_619,
    "magvit2_video_17f": 144_865_298 + 225_682_051 + 2 * (18 * 18 + 18),
}


# Parts whose weights may not be here; those of sounds and clips are not left out.
WITHOUT = {"modern_f16_16384": ["discriminator=none", "loss.logits.weight=0"]}
COMPLETE = {"jukebox_bottom", "encodec_24khz", "sound_demo"}
# Parameters of published discriminators.
DISCRIMINATORS = {
    "vqgan_f16_1024": 2_765_633,
    "openmagvit2_256": 2_765_633,
    "magvit2_video_17f": 4_665_729,
    "vqganplus_12bit": 7_431_297,
    "maskbit_lfq_14bit": 7_431_297,
    "titok_s128": 1_909_889,
    "vitvqgan_small": 28_864_129,
    "bsq_vit_18bit": 28_864_129,
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_can_be_built_with_the_papers_sizes(name: str) -> None:
    less = [] if name in COMPLETE else ["loss/perceptual=none", *WITHOUT.get(name, [])]
    config = composed(f"experiment={name}", SHARDS, *less)
    assert config["name"] == name
    with without_downloads():
        module = built(config)
    tokenizer, size = module.tokenizer, Settings.of(config).data.sample_size
    if name in PUBLISHED:
        sizes = count(tokenizer.encoder), count(tokenizer.decoder)
        assert (*sizes, tokenizer.token_shape(*size)) == PUBLISHED[name]
    assert count(tokenizer) == TOTALS.get(name, count(tokenizer))
    if name in DISCRIMINATORS:
        assert count(module.objective.discriminator) == DISCRIMINATORS[name]


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("vqganplus_12bit", {"reconstruction": ("l2", 1.0), "perceptual": ("resnet50", 0.1)}),
        ("maskbit_lfq_14bit", {"reconstruction": ("l2", 1.0), "perceptual": ("resnet50", 0.1)}),
        ("titok_b64", {"perceptual": ("lpips", 1.0), "logits": ("convnext", 0.1)}),
        ("dalle_dvae", {"reconstruction": ("logit_laplace", 1.0)}),
    ],
)
def test_the_terms_of_the_loss_are_the_published_ones(
    name: str, terms: dict[str, tuple[str, float]]
) -> None:
    loss = composed(f"experiment={name}", SHARDS)["loss"]
    assert {key: (loss[key]["kind"], loss[key]["weight"]) for key in terms} == terms


def test_the_vqgan_has_the_papers_adversarial_loss() -> None:
    # Without the perceptual network, whose weights may not be here.
    config = composed("experiment=vqgan_f16_1024", SHARDS, "loss/perceptual=none")
    weight = built(config).objective.adversarial.weight
    assert (weight.weight, weight.adaptive, weight.start_step) == (0.8, True, 250_000)


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
def test_all_parts_of_the_modern_experiment_train_together(pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    words = [
        *(word for word in REDUCED if not word.startswith(("experiment=", "discriminator."))),
        *("experiment=modern_f16_16384", "trainer.max_steps=20", f"data.train={pictures}"),
        *("loss.perceptual.weight=0", "loss.logits.weight=0", f"weights.discriminator={file}"),
        *("discriminator.model=test_vit", "discriminator.size=32", "discriminator.blocks=[0,5]"),
    ]
    assert main(["train", *words, f"run_dir={tmp_path / 'run'}"]) == 0
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["train/skipped_steps"] == 0
    assert last["train/adversarial/weight"] > 0
    assert last["train/discriminator/consistency"] > 0
    assert "train/discriminator/lecam" in last


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
