"""From the words of ``vqtrain train`` to a run directory."""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from vqtrain.app.parts.build import build_module, find_metrics
from vqtrain.app.parts.compose import CommandLine, compose, lookup_config
from vqtrain.app.parts.data import open_data, texts_needed
from vqtrain.app.parts.ending import allowing, conclude
from vqtrain.app.parts.inherit import begin
from vqtrain.app.parts.output import folder_of
from vqtrain.app.parts.resume import check_images, continued_config
from vqtrain.app.parts.settings import Settings
from vqtrain.data.remote.urls import shareable
from vqtrain.errors import ConfigError, VqtrainError
from vqtrain.ops.signals import OutOfTime, time_limit
from vqtrain.reports.page import write as write_page
from vqtrain.reports.run import Held
from vqtrain.shapes import by
from vqtrain.tokenizer.storage import packages_in
from vqtrain.training import run_directory
from vqtrain.training.bad_samples import FILE as BAD_SAMPLES
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.checkpoints import TrainingCheckpoint
from vqtrain.training.console import RunConsole
from vqtrain.training.data_module import TrainingData
from vqtrain.training.launch import build_trainer, quiet_libraries, rank_named
from vqtrain.training.memory import look_at_memory
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.outlook import (
    describe_data,
    describe_length,
    describe_size,
    describe_software,
    warnings_of,
)
from vqtrain.training.run import fit
from vqtrain.training.run_directory import latest_of, new_run_dir
from vqtrain.training.tokenizer_state import read_training
from vqtrain.training.trackers.build import build_tracker
from vqtrain.training.trackers.lightning import build_logger
from vqtrain.training.user_callbacks import build_callbacks
from vqtrain.training.validation import Validation

# What file systems allow.
MAX_NAME_BYTES = 255

# Images of the page that a run leaves: they take a moment, and `vqtrain report` takes more of them.
REPORT_IMAGES = 16
# Seconds after which a run ends without its page.
REPORT_S = 60.0


def train(command_line: CommandLine, words: Sequence[str], composed: dict[str, Any] | None) -> int:
    """Check everything that can be checked before the first step, then run.

    Args:
        command_line: What was typed after ``vqtrain train``.
        words: The same as it was typed.
        composed: The configuration of a run from its start; None if it may be one that is resumed.
    """
    quiet_libraries()
    typed = shareable(shlex.join(["vqtrain", "train", *words]))
    checkpoint, run_dir, remarks = locate(composed or lookup_config(command_line))
    if checkpoint is not None:
        config, changes = continued_config(command_line, checkpoint["config"])
        remarks += changes
    else:
        config = composed or compose("train", command_line)
    settings = Settings.of(config)
    trainer = build_trainer(settings.trainer)
    with rank_named(trainer):
        return train_on(trainer, config, settings, run_dir, checkpoint, remarks, typed)


def train_on(
    trainer: Trainer,
    config: dict[str, Any],
    settings: Settings,
    run_dir: Path | None,
    checkpoint: TrainingCheckpoint | None,
    remarks: Sequence[str],
    typed: str,
) -> int:
    """Build what the run needs, and run."""
    callbacks = build_callbacks(config["callbacks"], settings.trainer.max_steps)
    module = build_module(config, settings)
    begun = [] if checkpoint is not None else begin(module, config)
    if checkpoint is not None and checkpoint["training"]["step"] >= settings.trainer.max_steps:
        if trainer.is_global_zero:
            sys.stdout.write(
                f"{run_dir} is finished at step {checkpoint['training']['step']}: "
                "raise trainer.max_steps to continue\n"
            )
        return 0
    device = trainer.strategy.root_device
    metrics, best = find_metrics(config, settings, device)
    texts = texts_needed(module.objective.alignment, metrics)
    data = open_data(settings, config["seed"], checkpoint, module.tokenizer.unit, texts)
    if checkpoint is not None:
        remarks = [*remarks, *check_images(config, checkpoint, data)]
    # All is checked: from here on there is a run directory. Only the first process writes to it.
    if run_dir is None:
        find = new_run_dir if trainer.is_global_zero else latest_of
        run_dir = find(config["name"])
    console = RunConsole(
        log=run_dir / "log.txt",
        max_steps=settings.trainer.max_steps,
        data=data,
        is_main=trainer.is_global_zero,
    )
    bad_samples = BadSamples(path=run_dir / BAD_SAMPLES, data=data, say=console.line)
    validation = Validation(
        data=data,
        metrics=metrics,
        best=best,
        images=run_dir / "images",
        bad_samples=bad_samples,
    )
    with ExitStack() as stack:
        tracker = None
        if trainer.is_global_zero:
            resuming = checkpoint is not None
            processes = settings.trainer.world_size
            lock = run_directory.begin(
                run_dir, config=config, command=typed, processes=processes, resuming=resuming
            )
            stack.enter_context(lock)
            if config["run_dir"] is None:  # the user has not chosen it
                run_directory.point_latest(run_dir)
            introduce(console, module, trainer, data, run_dir, checkpoint, begun, remarks)
        logger = build_logger(
            config["logger"], run_dir=run_dir, name=config["name"], is_main=trainer.is_global_zero
        )
        if trainer.is_global_zero:
            tracker = build_tracker(
                config["logger"],
                logger=logger,
                run_dir=run_dir,
                name=config["name"],
                config=config,
                first_step=checkpoint["training"]["step"] if checkpoint else 0,
                warn=console.line,
            )
        stack.enter_context(tracker or nullcontext())
        began = time.monotonic()
        with failure_reported(console, run_dir, config, data, device):
            outcome = fit(
                trainer=trainer,
                module=module,
                data=data,
                validation=validation,
                bad_samples=bad_samples,
                config=config,
                run_dir=run_dir,
                console=console,
                tracker=tracker,
                logger=logger,
                callbacks=callbacks,
                checkpoint=checkpoint,
            )
        conclude(
            console,
            run_dir,
            config,
            outcome,
            bad_samples,
            checkpoint,
            seconds=time.monotonic() - began,
        )
        if outcome.signal_number is None:
            write_report(console, run_dir, config, data, device)
    # Launchers take the end of any process but the first one by a signal for a failure.
    if outcome.signal_number is None or not trainer.is_global_zero:
        return 0
    return 128 + outcome.signal_number


@contextmanager
def failure_reported(
    console: RunConsole,
    run_dir: Path,
    config: Mapping[str, Any],
    data: TrainingData,
    device: torch.device,
) -> Iterator[None]:
    """Return a context after whose failure the run has a page too."""
    try:
        yield
    except VqtrainError as error:
        if error.exit_code == 1:
            write_report(console, run_dir, config, data, device)
        raise


def write_report(
    console: RunConsole,
    run_dir: Path,
    config: Mapping[str, Any],
    data: TrainingData,
    device: torch.device,
) -> None:
    """Write the run's page, on the first process alone, which does not wait for the others.

    An error here is a warning, as the run is over. It is not written to log.txt, whose last line
    is the end of the training.
    """
    if not console.is_main:
        return
    allow = packages_in(config)  # this process has run their classes
    later = f"vqtrain report path={shlex.quote(str(run_dir))}{allowing(config)}"
    console.terminal.print(f"writing the report, {REPORT_S:.0f} s at most", markup=False)
    held = Held(index=data.validation, transform=data.settings.transform)
    try:
        with time_limit(REPORT_S):
            file = write_page(run_dir, limit=REPORT_IMAGES, device=device, held=held, allow=allow)
    except OutOfTime:
        said = f"warning: there is no report, it takes longer; write it with: {later}"
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        said = f"warning: there is no report: {reason}"
    else:
        said = f"report: {file}"
    console.terminal.print(said, markup=False)


def locate(
    config: Mapping[str, Any],
) -> tuple[TrainingCheckpoint | None, Path | None, list[str]]:
    """Find the checkpoint to continue from, the run directory if it is known, and remarks."""
    name, run_dir, resume = config["name"], config["run_dir"], config["resume"]
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".."):
        raise ConfigError(f"name must be a word that can name a folder, got {name!r}")
    if len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise ConfigError(f"name must have at most {MAX_NAME_BYTES} bytes, got {name[:40]}...")
    if resume is not None:
        file = run_directory.find_checkpoint(resume, run_dir, name)
        if file is not None:
            home = folder_of(run_dir, "run_dir") if run_dir is not None else file.parent.parent
            damaged = [] if Path(resume).name == file.name else run_directory.damaged_after(file)
            remarks = [f"{name} cannot be read, so that {file} is the newest" for name in damaged]
            return read_training(file), home, remarks
    if run_dir is not None:
        return None, folder_of(run_dir, "run_dir"), []
    return None, None, []


def introduce(
    console: RunConsole,
    module: TokenizerTraining,
    lightning_trainer: Trainer,
    data: TrainingData,
    run_dir: Path,
    checkpoint: TrainingCheckpoint | None,
    begun: Sequence[str],
    remarks: Sequence[str],
) -> None:
    """Print what is about to run."""
    tokenizer, settings = module.tokenizer, data.settings
    shape = by(tokenizer.token_shape(*settings.sample_size))
    codebook = tokenizer.codebook
    noun = data.noun
    each = f"an {noun}" if noun.startswith("i") else f"a {noun}"
    tokens = f"{shape} tokens {each}, {codebook.size} codes"
    if codebook.num_codebooks == 0:
        tokens = f"{shape.removeprefix('0 x ')} latents of {codebook.dim} channels {each}"
    trainer, objective = module.settings, module.objective
    batches = trainer.accumulate * trainer.world_size
    console.line(describe_software(), log_only=True)
    console.line(f"run directory: {run_dir}")
    for line in describe_data(data):
        console.line(line)
    console.line(f"tokenizer: {tokens}, {describe_size(tokenizer)}")
    for line in begun:
        console.line(line)
    if objective.discriminator is not None:
        console.line(
            f"discriminator: {describe_size(objective.discriminator)}, from step "
            f"{objective.adversarial.weight.start_step} on"
        )
    console.line(
        f"batch: {batches * settings.batch_size} {noun}s ({trainer.world_size} "
        f"process{'es' if trainer.world_size > 1 else ''} x {trainer.accumulate} accumulated x "
        f"{settings.batch_size}), on the {'GPU' if trainer.uses_gpu else 'CPU'}"
    )
    console.line(describe_length(data, trainer))
    memory = look_at_memory(module, lightning_trainer, settings)
    if memory is not None:
        console.line(f"memory: {memory}")
        if memory.remedy is not None:
            remarks = [*remarks, f"a step does not fit into memory: {memory.remedy}"]
    for remark in [*remarks, *warnings_of(data, trainer, module.optim_settings)]:
        console.line(f"warning: {remark}")
    if checkpoint is not None:
        console.line(f"resuming at step {checkpoint['training']['step']}")
