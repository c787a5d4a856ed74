"""One training run, from settings to a trained tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vqtrain.errors import VqtrainError
from vqtrain.training.callbacks import MAX_SKIPPED_IN_ROW, Stopping
from vqtrain.training.checkpoints import Checkpointing, TrainingCheckpoint, restore
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.record import Record, cut_back
from vqtrain.training.screen import Screen
from vqtrain.training.settings import MetricsSettings, TrainerSettings
from vqtrain.training.validation import Validation


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        reason: ``finished``, ``signal`` or ``time``.
        signal_number: The signal that ended it, or None.
        step: Steps made.
        results: What the newest validation measured.
    """

    reason: str
    signal_number: int | None
    step: int
    results: Mapping[str, float]


@final
class Beginning(Callback):
    """Brings the module to where the run begins, once it is on its device.

    Args:
        data: The data of the run.
        checkpoint: What a resumed run goes on from, or None.
        has_weights: Whether the tokenizer was given weights, so that its codebook is not fresh.
    """

    def __init__(
        self, *, data: TrainingData, checkpoint: TrainingCheckpoint | None, has_weights: bool
    ) -> None:
        self.data, self.checkpoint, self.has_weights = data, checkpoint, has_weights

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore, or initialize the codebook; then compile."""
        del trainer
        assert isinstance(pl_module, TokenizerTraining)
        tokenizer = pl_module.tokenizer
        tokenizer.to(memory_format=torch.channels_last)
        if self.checkpoint is not None:
            restore(pl_module, self.checkpoint)
        else:
            if not self.has_weights:
                pl_module.initialize_codebook(self.data.first_batches())
            pl_module.begin_average()
        self.checkpoint = None  # gives its memory back
        if pl_module.settings.compile:
            tokenizer.encoder.compile()
            tokenizer.decoder.compile()


def fit(
    *,
    module: TokenizerTraining,
    data: TrainingData,
    settings: TrainerSettings,
    metrics: MetricsSettings,
    config: Mapping[str, object],
    run_dir: Path,
    screen: Screen,
    checkpoint: TrainingCheckpoint | None,
    has_weights: bool,
) -> Outcome:
    """Train until the last step, a signal, or the end of the time.

    Args:
        module: What trains.
        data: What it trains on.
        settings: The ``trainer`` group.
        metrics: The ``metrics`` group.
        config: The whole configuration, as plain data, for the checkpoints.
        run_dir: An existing folder that no other process uses.
        screen: Where people see it.
        checkpoint: What to go on from, or None.
        has_weights: Whether the tokenizer was given weights to start from.

    Raises:
        VqtrainError: If something fails in mid-run; its exit code is 1.
    """
    stopping = Stopping(max_time_s=settings.max_time_s)
    validation = Validation(
        loader=data.validation_batches(), settings=metrics, pictures=run_dir / "images"
    )
    record = Record(path=run_dir / "metrics.jsonl", validation=validation, screen=screen)
    checkpointing = Checkpointing(
        run_dir=run_dir,
        config=config,
        best_metric=metrics.best,
        validation=validation,
        data=data,
        resumed=checkpoint["training"] if checkpoint else None,
    )
    beginning = Beginning(data=data, checkpoint=checkpoint, has_weights=has_weights)
    cut_back(record.path, checkpoint["training"]["step"] if checkpoint else 0)
    # Their order is the order of a step's end: validation comes before a checkpoint of its step.
    callbacks = [beginning, screen, stopping, validation, record, checkpointing]
    trainer = Trainer(
        # Lightning's own "auto" may pick a device without float64, which the metrics need.
        accelerator="gpu" if settings.accelerator != "cpu" and torch.cuda.is_available() else "cpu",
        devices=1,
        precision=settings.precision,  # type: ignore[arg-type]  # checked by TrainerSettings
        deterministic=settings.deterministic,
        benchmark=not settings.deterministic,
        max_steps=-1,
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=run_dir,
    )
    try:
        trainer.fit(module, datamodule=data)
    except VqtrainError as error:
        raise in_mid_run(error) from error
    except torch.OutOfMemoryError as error:
        raise in_mid_run(
            VqtrainError(
                f"the device has no memory left at step {module.step}: lower data.batch_size and "
                "raise trainer.accumulate by as much, which makes the same steps"
            )
        ) from error
    except OSError as error:
        raise in_mid_run(VqtrainError(f"stopped at step {module.step}: {error}")) from error
    if stopping.reason == "nonfinite":
        raise in_mid_run(
            VqtrainError(
                f"{MAX_SKIPPED_IN_ROW} steps in a row had a loss or a gradient that is not finite; "
                f"they were skipped, and {run_dir}/checkpoints/last.ckpt holds step {module.step}. "
                "Lower optim.lr or trainer.clip, or look at the data"
            )
        )
    assert stopping.reason is not None, "the run ends by a decision of Stopping"
    return Outcome(
        reason=stopping.reason,
        signal_number=stopping.signal_number,
        step=module.step,
        results=checkpointing.results,
    )


def in_mid_run(error: VqtrainError) -> VqtrainError:
    """Mark an error as one that came after the first step."""
    error.exit_code = 1
    return error
