"""One run that trains a model over token ids, from arrays to its results."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

from vqtrain import distributed
from vqtrain.errors import CheckpointError, DataError, require
from vqtrain.generation.base import TokenModel
from vqtrain.generation.results import CurvePoint
from vqtrain.ops.precision import PRECISIONS
from vqtrain.optim.settings import OptimSettings
from vqtrain.ranges import FINITE, above, at_least, check_fields, one_of
from vqtrain.tokenizer import storage
from vqtrain.training import run_directory
from vqtrain.training.checkpoints import BEST, TrainingCheckpoint, read
from vqtrain.training.console import RunConsole
from vqtrain.training.launch import build_trainer, quiet_libraries, rank_named
from vqtrain.training.outlook import describe_size, describe_software
from vqtrain.training.results import METRICS, read_metrics
from vqtrain.training.run import Outcome, fit, resumed_by
from vqtrain.training.settings import ACCELERATORS, TrainerSettings
from vqtrain.training.token_arrays import TokenArrays
from vqtrain.training.token_data import TokenData
from vqtrain.training.token_model import MODEL, CodeLength, TokenModelTraining

# Validations of a run: as many as cost this share of the training, within these limits.
VALIDATION_SHARE, MIN_VALIDATIONS, MAX_VALIDATIONS = 0.2, 4, 20
LOGGED_LINES = 25
# Of small language models.
BETAS, WEIGHT_DECAY, WARMUP_SHARE, CLIP = [0.9, 0.95], 0.1, 0.05, 1.0


@final
@dataclass(frozen=True, kw_only=True)
class TokenRunSettings:
    """How a model over token ids is trained.

    Attributes:
        steps: Updates of the model.
        batch_size: Samples of a step, over all processes.
        accumulate: Batches of each process that make a step.
        lr: Learning rate after the warm-up.
        max_time: "HH:MM:SS" after which this call stops with a checkpoint, or None.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        devices: Processes, each with a device of its own.
        precision: Of the computation.
        seed: Of all that is random.

    Raises:
        ConfigError: If a value is out of range, or a step cannot be split into such batches.
    """

    steps: Annotated[int, at_least(1)]
    batch_size: Annotated[int, at_least(1)]
    accumulate: Annotated[int, at_least(1)]
    lr: Annotated[float, above(0), FINITE]
    max_time: str | None
    accelerator: Annotated[str, one_of(*ACCELERATORS)]
    devices: Annotated[int, at_least(1)]
    precision: Annotated[str, one_of(*PRECISIONS)]
    seed: Annotated[int, at_least(0)]

    def __post_init__(self) -> None:
        check_fields(self, "")
        batches = self.devices * self.accumulate
        rest = self.batch_size % batches
        require(
            rest == 0,
            f"batch_size={self.batch_size} cannot be split evenly over devices={self.devices} x "
            f"accumulate={self.accumulate} batches: use {self.batch_size + batches - rest}",
        )

    @property
    def samples_a_batch(self) -> int:
        """Samples of each batch of a process."""
        return self.batch_size // (self.devices * self.accumulate)

    @property
    def figures(self) -> dict[str, object]:
        """What alters the figures of a run."""
        return {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "precision": self.precision,
            "seed": self.seed,
        }

    @property
    def optim(self) -> OptimSettings:
        """AdamW with a warm-up and a cosine."""
        return OptimSettings(
            lr=self.lr,
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            warmup_steps=round(WARMUP_SHARE * self.steps),
            schedule="cosine",
        )

    def trainer(self, held_out: int) -> TrainerSettings:
        """Return the settings of the trainer, with so many samples to validate on."""
        # A validation is a forward pass, a third of the work of training on as many samples.
        affordable = 3 * VALIDATION_SHARE * self.steps * self.batch_size / held_out
        validations = min(MAX_VALIDATIONS, max(MIN_VALIDATIONS, int(affordable)))
        every = math.ceil(self.steps / validations)
        return TrainerSettings(
            max_steps=self.steps,
            max_time=self.max_time,
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=1,
            strategy="ddp",
            precision=self.precision,
            accumulate=self.accumulate,
            clip=CLIP,
            memory_format="contiguous",
            checkpoint_activations="none",
            compile=False,
            deterministic=False,
            freeze=[],
            ema_decay=0.0,
            ema_device=None,
            log_every=math.ceil(self.steps / LOGGED_LINES),
            validate_every=every,
            checkpoint_every=every,
            keep_checkpoints=1,
            limit_val=None,
            profile=False,
        )


@final
@dataclass(frozen=True, kw_only=True)
class TokenRun:
    """What has come of a run.

    Attributes:
        outcome: How this call ended.
        curve: The code length at each validation.
        best_step: Of the best validation, whose weights ``load_best`` loads; None before the first.
        bits_per_token: Of that validation; NaN before the first.
        bits_per_pixel: Of that validation; NaN before the first.
    """

    outcome: Outcome
    curve: list[CurvePoint]
    best_step: int | None
    bits_per_token: float
    bits_per_pixel: float


def train_token_model(
    *,
    model: TokenModel,
    training: TokenArrays,
    validation: TokenArrays,
    num_positions: int,
    settings: TokenRunSettings,
    config: Mapping[str, object],
    command: str,
    run_dir: Path,
) -> TokenRun | None:
    """Train a model over token ids, or continue where an earlier call ended.

    With several devices it starts the other processes by the command line of this one, which must
    come here as well. At its end this process is alone again, and has the weights of the last step.

    Args:
        model: With the weights to begin from.
        training: What is trained on.
        validation: What is validated on.
        num_positions: Positions of a sample, such as the pixels of an image.
        settings: How it is trained.
        config: What else alters the figures, as plain data, by the keys that people type.
        command: The command line, without passwords.
        run_dir: The run directory, which need not exist.

    Returns:
        What has come of it; None in other processes than the first one.

    Raises:
        ConfigError: If there are fewer samples than a step takes.
        DataError: If ids are not of the model's form.
        CheckpointError: If the run was begun with other settings or ids, or is in use.
        FailedError: If something fails after training began.
    """
    quiet_libraries()
    check_arrays(model, training, validation, settings)
    whole = {**config, **settings.figures}
    last = run_directory.last_checkpoint(run_dir)
    checkpoint = None if last is None else read(last)
    if checkpoint is not None:
        check_same(run_dir, checkpoint, whole, training, validation)
    trainer_settings = settings.trainer(len(validation))
    if checkpoint is not None and checkpoint["training"]["step"] >= settings.steps:
        return results_of(run_dir, finished(checkpoint))
    trainer = build_trainer(trainer_settings)
    data = TokenData(
        training=training,
        validation=validation,
        batch_size=settings.samples_a_batch,
        seed=settings.seed,
        start=checkpoint["training"]["samples"] if checkpoint else 0,
    )
    console = RunConsole(
        log=run_dir / "log.txt",
        max_steps=settings.steps,
        data=data,
        is_main=trainer.is_global_zero,
    )
    module = TokenModelTraining(
        model=model,
        trainer_settings=trainer_settings,
        optim_settings=settings.optim,
        seed=settings.seed,
    )
    with rank_named(trainer), ExitStack() as stack:
        if trainer.is_global_zero:
            lock = run_directory.begin(
                run_dir,
                config=whole,
                command=command,
                processes=settings.devices,
                resuming=checkpoint is not None,
            )
            stack.enter_context(lock)
            introduce(console, module, data, checkpoint)
        outcome = fit(
            trainer=trainer,
            module=module,
            data=data,
            validation=CodeLength(data=data, num_positions=num_positions),
            bad_samples=None,
            config=whole,
            run_dir=run_dir,
            console=console,
            tracker=None,
            logger=None,
            callbacks={},
            checkpoint=checkpoint,
        )
        if outcome.stopped is not None:
            console.line(f"{outcome.stopped}; continue with {resumed_by(module, run_dir)}")
    distributed.leave()
    return results_of(run_dir, outcome) if trainer.is_global_zero else None


def check_arrays(
    model: TokenModel, training: TokenArrays, validation: TokenArrays, settings: TokenRunSettings
) -> None:
    """Refuse ids that the model cannot be trained on.

    Raises:
        ConfigError: If there are fewer samples than a step takes.
        DataError: If ids are not of the model's form.
    """
    require(
        len(training) >= settings.batch_size,
        f"there are {len(training)} training samples, fewer than batch_size={settings.batch_size} "
        "of a step: give more images, or a smaller batch_size",
    )
    for arrays, what in ((training, "training"), (validation, "validation")):
        shape, largest = arrays.token_ids.shape[1:], int(arrays.token_ids.max())
        if list(shape) != list(model.form.token_shape) or largest >= model.form.size:
            raise DataError(
                f"the {what} ids are {list(shape)} up to {largest}, those of the model "
                f"{list(model.form.token_shape)} below {model.form.size}: they are of another "
                "tokenizer or image_size"
            )


def check_same(
    run_dir: Path,
    checkpoint: TrainingCheckpoint,
    config: Mapping[str, object],
    training: TokenArrays,
    validation: TokenArrays,
) -> None:
    """Refuse to continue a run with what would alter its figures.

    Raises:
        CheckpointError: If the settings or the ids are others than those of the checkpoint.
    """
    saved, state = checkpoint["config"], checkpoint["training"]
    for key in dict.fromkeys([*saved, *config]):
        if saved.get(key) != config.get(key):
            raise CheckpointError(
                f"{run_dir} was begun with {key}={saved.get(key)}, got {config.get(key)}: give "
                "the same to continue it, or another out"
            )
    for digest, found in (
        (state["images"], training.digest),
        (state.get("validation_images"), validation.digest),
    ):
        if digest != found:
            raise CheckpointError(
                f"{run_dir} was begun with other token ids: give the same images to continue it, "
                "or another out"
            )


def introduce(
    console: RunConsole,
    module: TokenModelTraining,
    data: TokenData,
    checkpoint: TrainingCheckpoint | None,
) -> None:
    """Print what is about to run."""
    model, trainer = module.model, module.settings
    form, of_step = model.form, data.batch_size * trainer.accumulate * trainer.world_size
    console.line(describe_software(), log_only=True)
    console.line(f"run directory: {console.log_file.parent}")
    console.line(
        f"ids: {len(data.training):,} training samples, {len(data.validation):,} validation "
        f"samples, {form.num_tokens:,} ids each out of {form.size:,}"
    )
    console.line(f"model: {model.kind}, {describe_size(model)}")
    epochs = trainer.max_steps * of_step / len(data.training)
    console.line(
        f"length: {trainer.max_steps:,} steps of {of_step:,} samples, {epochs:,.1f} epochs, on the "
        f"{'GPU' if trainer.uses_gpu else 'CPU'}"
    )
    if checkpoint is not None:
        console.line(f"resuming at step {checkpoint['training']['step']}")


def finished(checkpoint: TrainingCheckpoint) -> Outcome:
    """Describe a run that had ended before."""
    state = checkpoint["training"]
    return Outcome(
        reason="finished",
        signal_number=None,
        step=state["step"],
        results=state["results"],
        is_validated=True,
        conclusion=None,
    )


def results_of(run_dir: Path, outcome: Outcome) -> TokenRun:
    """Read what a run has measured."""
    metrics, _ = read_metrics(run_dir / METRICS)
    pixels, tokens = (metrics.get(f"val/bits_per_{each}") for each in ("pixel", "token"))
    best = None if pixels is None else pixels.best(is_lower_better=True)
    if pixels is None or tokens is None or best is None:
        return TokenRun(
            outcome=outcome,
            curve=[],
            best_step=None,
            bits_per_token=math.nan,
            bits_per_pixel=math.nan,
        )
    step, bits = best
    points = zip(pixels.steps.tolist(), pixels.values.tolist(), strict=True)
    return TokenRun(
        outcome=outcome,
        curve=[CurvePoint(step=int(at), bits_per_pixel=value) for at, value in points],
        best_step=step,
        bits_per_token=float(tokens.values[tokens.steps == step][0]),
        bits_per_pixel=bits,
    )


def load_best(model: TokenModel, run_dir: Path) -> None:
    """Load the weights of the best validation of a run.

    Raises:
        CheckpointError: If there are none, or they are of another model.
    """
    file = run_dir / "checkpoints" / BEST
    if not file.is_file():
        raise CheckpointError(f"{run_dir} holds no model yet: continue the run that began it")
    weights = storage.read_plain(file).get(MODEL)
    try:
        model.load_state_dict(weights)  # type: ignore[arg-type]  # the error says what it is else
    except (TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} holds another model: {reason}") from error
