"""``vqtrain train``: from overrides to a run directory."""

import json
import logging
import platform
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import yaml

from vqtrain.app.compose import CommandLine, compose, describe_keys, read_command_line
from vqtrain.app.resume import continued_config
from vqtrain.build import bind, resolve_fractions
from vqtrain.data.settings import DataSettings
from vqtrain.data.sources import training_and_validation
from vqtrain.errors import ConfigError
from vqtrain.losses.reconstruction import ReconstructionLoss
from vqtrain.objective import Objective
from vqtrain.ops.random import seed_torch
from vqtrain.optim.settings import OptimSettings
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training import checkpoints, run_directory
from vqtrain.training.checkpoints import TrainingCheckpoint
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.run import Outcome, fit
from vqtrain.training.screen import Screen
from vqtrain.training.settings import MetricsSettings, TrainerSettings
from vqtrain.version import __version__

USAGE = """usage: vqtrain train [group=choice ...] [key=value ...]

options:
  --config-dir DIR   a folder with configs of your own, laid out as vqtrain's configs/
  --print-config     show the composed configuration and stop
  --help             show this

{keys}

Step values may be a share of the run, such as trainer.validate_every="10%".

examples:
  vqtrain train experiment=demo
  vqtrain train data.train=~/photographs codebook=vq codebook.size=4096 name=photographs
"""


def main(words: Sequence[str]) -> int:
    """Train, or show the help or the configuration."""
    command_line = read_command_line(words)
    if command_line.show_help:
        sys.stdout.write(USAGE.format(keys=describe_keys("train")))
        return 0
    config = compose("train", command_line)
    if command_line.print_config:
        sys.stdout.write(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return 0
    return train(config, command_line)


def train(config: dict[str, Any], command_line: CommandLine) -> int:
    """Check everything that can be wrong before the first step, then run."""
    quiet_libraries()
    checkpoint, run_dir = locate(config)
    remarks: list[str] = []
    if checkpoint is not None:
        config, remarks = continued_config(config, command_line, checkpoint["config"])
    settings = Settings.of(config)
    module = build_module(config, settings)
    has_weights = checkpoint is not None
    if not has_weights and config["init_from"] is not None:
        module.tokenizer.load_weights(Tokenizer.from_pretrained(config["init_from"]).state_dict())
        has_weights = True
    if checkpoint is not None and checkpoint["training"]["step"] >= settings.trainer.max_steps:
        sys.stdout.write(
            f"{run_dir} is finished at step {checkpoint['training']['step']}: "
            "raise trainer.max_steps to go on\n"
        )
        return 0
    data = open_data(settings, config["seed"], checkpoint)
    with run_directory.claim(run_dir, resuming=checkpoint is not None):
        run_directory.write_config(run_dir, config)
        if config["run_dir"] is None:
            run_directory.point_latest(run_dir)
        screen = Screen(
            log=run_dir / "log.txt",
            max_steps=settings.trainer.max_steps,
            data=data,
        )
        introduce(screen, module, data, run_dir, checkpoint, remarks)
        began = time.monotonic()
        outcome = fit(
            module=module,
            data=data,
            settings=settings.trainer,
            metrics=settings.metrics,
            config=config,
            run_dir=run_dir,
            screen=screen,
            checkpoint=checkpoint,
            has_weights=has_weights,
        )
        conclude(screen, run_dir, outcome, seconds=time.monotonic() - began)
    return 0 if outcome.signal_number is None else 128 + outcome.signal_number


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The config groups that are not modules, checked."""

    data: DataSettings
    optim: OptimSettings
    trainer: TrainerSettings
    metrics: MetricsSettings

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Settings":
        """Check and bind the groups of a composed configuration."""
        max_steps, seed = config["trainer"]["max_steps"], config["seed"]
        if not isinstance(max_steps, int) or isinstance(max_steps, bool):
            raise ConfigError(f"trainer.max_steps must be a whole number, got {max_steps!r}")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ConfigError(f"seed must be a whole number, got {seed!r}")
        resolved: dict[str, Any] = resolve_fractions(config, max_steps)
        groups = {
            "data": DataSettings,
            "optim": OptimSettings,
            "trainer": TrainerSettings,
            "metrics": MetricsSettings,
        }
        return cls(
            **{name: bind(group, resolved[name], where=name) for name, group in groups.items()}
        )


def build_module(config: Mapping[str, Any], settings: Settings) -> TokenizerTraining:
    """Build the tokenizer and its objective, and check that images fit them."""
    seed_torch(config["seed"], "weights")
    resolved: dict[str, Any] = resolve_fractions(config, settings.trainer.max_steps)
    parts = {name: split_kind(resolved[name]) for name in ("encoder", "codebook", "decoder")}
    tokenizer = Tokenizer(**parts, channels=settings.data.channels)
    size = settings.data.image_size
    if size % tokenizer.downsampling:
        lower = size - size % tokenizer.downsampling
        near = [str(n) for n in (lower, lower + tokenizer.downsampling) if n > 0]
        raise ConfigError(
            f"data.image_size must be a multiple of the encoder's downsampling, "
            f"{tokenizer.downsampling}; got {size}, nearest are {' and '.join(near)}"
        )
    if "ssim" in settings.metrics.images and size < 11:
        raise ConfigError(f"data.image_size must be at least 11 for ssim, got {size}")
    check_shapes(tokenizer)
    reconstruction = bind(
        ReconstructionLoss, resolved["loss"]["reconstruction"], where="loss.reconstruction"
    )
    return TokenizerTraining(
        tokenizer=tokenizer,
        objective=Objective(reconstruction=reconstruction),
        trainer_settings=settings.trainer,
        optim_settings=settings.optim,
        seed=config["seed"],
    )


def split_kind(group: Mapping[str, Any]) -> dict[str, object]:
    """Turn a module's yaml into the form that a tokenizer is built from."""
    arguments = dict(group)
    return {"kind": arguments.pop("kind", None), "arguments": arguments}


@torch.no_grad()
def check_shapes(tokenizer: Tokenizer) -> None:
    """Send one small image through, so that modules that do not fit are found before the data."""
    side = 2 * tokenizer.downsampling
    image = torch.zeros(1, tokenizer.channels, side, side)
    tokenizer.eval()
    try:
        made = tokenizer(image).images
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"encoder, codebook and decoder do not fit: {reason}") from error
    finally:
        tokenizer.train()
    if made.shape != image.shape:
        raise ConfigError(
            f"encoder and decoder do not fit: an image of {list(image.shape)} comes back as "
            f"{list(made.shape)}"
        )


def locate(config: Mapping[str, Any]) -> tuple[TrainingCheckpoint | None, Path]:
    """Find the checkpoint to go on from, if any, and the run directory."""
    name, run_dir, resume = config["name"], config["run_dir"], config["resume"]
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ConfigError(f"name must be a word that can name a folder, got {name!r}")
    if resume is not None:
        file = run_directory.find_checkpoint(resume, run_dir, name)
        if file is not None:
            home = Path(run_dir).expanduser() if run_dir else file.parent.parent
            return checkpoints.read(file), home
    if run_dir is not None:
        return None, Path(run_dir).expanduser()
    return None, run_directory.new_run_dir(name)


def open_data(settings: Settings, seed: int, checkpoint: TrainingCheckpoint | None) -> TrainingData:
    """Index the images, and take those to validate on evenly from all that there are."""
    training, validation = training_and_validation(settings.data.train, settings.data.val)
    limit = settings.trainer.limit_val
    if limit is not None and limit < len(validation):
        validation = validation.select(np.arange(limit) * len(validation) // limit)
    return TrainingData(
        training=training,
        validation=validation,
        settings=settings.data,
        seed=seed,
        start=checkpoint["training"]["samples"] if checkpoint else 0,
    )


def quiet_libraries() -> None:
    """Keep the screen for the run: no advertisements, no advice that does not apply here."""
    for name in ("lightning.pytorch", "lightning.fabric", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def introduce(
    screen: Screen,
    module: TokenizerTraining,
    data: TrainingData,
    run_dir: Path,
    checkpoint: TrainingCheckpoint | None,
    remarks: Sequence[str],
) -> None:
    """Say what is about to run."""
    tokenizer, settings = module.tokenizer, data.settings
    grid = tokenizer.token_shape(settings.image_size, settings.image_size)
    millions = sum(p.numel() for p in tokenizer.parameters()) / 1e6
    screen.line(
        f"vqtrain {__version__}, torch {torch.__version__}, lightning {lightning.__version__}, "
        f"python {platform.python_version()}",
        log_only=True,
    )
    screen.line(f"run directory: {run_dir}")
    screen.line(
        f"images: {len(data.training)} to train on, {len(data.validation)} to validate on, "
        f"{settings.image_size} x {settings.image_size} px"
    )
    screen.line(
        f"tokenizer: {' x '.join(map(str, grid))} tokens an image, {tokenizer.vocab_size} codes, "
        f"{millions:.2f} million parameters"
    )
    for remark in remarks:
        screen.line(f"warning: {remark}")
    if checkpoint is not None:
        screen.line(f"resuming at step {checkpoint['training']['step']}")


def conclude(screen: Screen, run_dir: Path, outcome: Outcome, *, seconds: float) -> None:
    """Say how it ended, where the results are, and what can be done with them."""
    if outcome.reason != "finished":
        why = "out of time" if outcome.reason == "time" else "stopped by a signal"
        screen.line(f"{why} at step {outcome.step}; go on with: vqtrain train resume={run_dir}")
        return
    rows = {name: f"{value:.4f}" for name, value in outcome.results.items()}
    rows |= {
        "steps": str(outcome.step),
        "time": time.strftime("%H:%M:%S", time.gmtime(seconds)),
        "pictures": str(run_dir / "images"),
        "tokenizer": str(run_dir / "tokenizer"),
    }
    screen.table("finished", rows)
    load = (
        f"from vqtrain import Tokenizer; t = Tokenizer.from_pretrained({str(run_dir)!r}); "
        "print(t.token_shape(256, 256), t.vocab_size)"
    )
    screen.line("try next:")
    screen.line(f"  python -c {json.dumps(load)}")
    screen.line("  vqtrain train experiment=demo data.train=A_FOLDER_OF_PICTURES name=mine")
