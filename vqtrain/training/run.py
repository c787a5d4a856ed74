"""One training run, from its first step or a checkpoint to its end."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from vqtrain import distributed
from vqtrain.errors import FailedError, Interrupted, as_failure
from vqtrain.ops.profiling import Call
from vqtrain.ops.signals import enforced
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.checkpoints import Checkpointing, TrainingCheckpoint
from vqtrain.training.console import RunConsole
from vqtrain.training.launch import GRACE_S, end_children, watched_children
from vqtrain.training.profile import Profile
from vqtrain.training.record import Record, cut_back
from vqtrain.training.step_end import StepEnd
from vqtrain.training.stopping import MAX_SKIPPED_IN_ROW, StopPolicy
from vqtrain.training.trackers.base import Tracker
from vqtrain.training.trained import RunData, Trained, Validator

WHY = {
    "time": "out of time",
    "signal": "stopped by a signal",
    "callback": "stopped by a callback",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        reason: ``finished``, ``signal`` or ``time``.
        signal_number: The signal that ended it, or None.
        step: Steps done.
        results: What the latest validation measured.
        is_validated: Whether that was in the last step.
        conclusion: What the module says of its run, or None.
    """

    reason: str
    signal_number: int | None
    step: int
    results: Mapping[str, float]
    is_validated: bool
    conclusion: str | None

    @property
    def stopped(self) -> str | None:
        """Why it ended at its step; None after the last one."""
        return f"{WHY[self.reason]} at step {self.step}" if self.reason in WHY else None


def fit(
    *,
    trainer: Trainer,
    module: Trained,
    data: RunData,
    validation: Validator,
    bad_samples: BadSamples | None,
    config: Mapping[str, object],
    run_dir: Path,
    console: RunConsole,
    tracker: Tracker | None,
    logger: Logger | None,
    callbacks: Mapping[str, Callback],
    checkpoint: TrainingCheckpoint | None,
) -> Outcome:
    """Train until the last step, a signal, or the end of the time.

    Args:
        trainer: From ``build_trainer``.
        module: What trains.
        data: What it trains on.
        validation: What it is measured by.
        bad_samples: Where samples that cannot be read are listed; None where all can be.
        config: The whole configuration, as plain data, for the checkpoints.
        run_dir: An existing folder that no other run uses.
        console: Where people see it.
        tracker: Where metrics go besides ``metrics.jsonl``, on the main process, or None.
        logger: For the user's callbacks, on all ranks, or None.
        callbacks: The user's own, by name.
        checkpoint: What to continue from, or None.

    Raises:
        VqtrainError: If something fails after training began; its exit code is 1.
    """
    step = checkpoint["training"]["step"] if checkpoint else 0
    stopping = StopPolicy(max_time_s=module.settings.max_time_s, bad_samples=bad_samples)
    record = Record(path=run_dir / "metrics.jsonl", console=console, tracker=tracker)
    checkpointing = Checkpointing(
        run_dir=run_dir,
        config=config,
        data=data,
        callbacks=callbacks,
        resumed=checkpoint["training"] if checkpoint else None,
    )
    step_end = StepEnd(
        callbacks=callbacks,
        checkpoint=checkpoint,
        fingerprint=fingerprint(config, step, data.training_digest, data.validation_digest),
        console=console,
        bad_samples=bad_samples,
        validation=validation,
        stopping=stopping,
        record=record,
        checkpointing=checkpointing,
    )
    if trainer.is_global_zero:
        cut_back(record.path, step)
        if bad_samples is not None:
            cut_back(bad_samples.path, step)
            bad_samples.begin()
    profiles = []
    if module.settings.profile and trainer.is_global_zero:
        methods = {"validation": (validation, "measure_if_due"), "logging": (record, "write")}
        methods["checkpoint"] = (checkpointing, "save_if_due")
        calls = [Call(part=p, owner=owner, method=name) for p, (owner, name) in methods.items()]
        profiles.append(Profile(folder=run_dir / "profile", calls=calls, say=console.line))
    trainer.callbacks = [*callbacks.values(), step_end, *profiles]  # type: ignore[attr-defined]  # its type is not declared
    trainer.loggers = [] if logger is None else [logger]
    module.logs = False  # the record does
    stopping.take_signals()
    with as_failure(
        {
            torch.OutOfMemoryError: lambda _: (
                f"the device has no memory left at step {module.step}: {module.advice.memory}"
            ),
            OSError: lambda error: f"stopped at step {module.step}: {error}",
            RuntimeError: lambda error: (
                f"lost another process of the run at step {module.step}: it failed, was killed "
                "(out of memory?) or could not be reached; look at what it printed, and continue "
                f"with {resumed_by(module, run_dir if trainer.is_global_zero else 'auto')}"
                if distributed.is_lost_peer(error)
                else None
            ),
        }
    ):
        fit_or_end(trainer, module, data, stopping)
    stopping.end()
    if stopping.reason == "nonfinite":
        raise FailedError(
            f"{MAX_SKIPPED_IN_ROW} steps in a row had a loss or a gradient that is not finite; "
            f"they were skipped, and {run_dir}/checkpoints/last.ckpt holds step {module.step}. "
            f"{module.advice.nonfinite}"
        )
    if stopping.reason == "data" and bad_samples is not None:
        raise FailedError(f"{bad_samples.verdict}, and continue with {resumed_by(module, run_dir)}")
    assert stopping.reason is not None, "the stop policy ends the run"
    return Outcome(
        reason=stopping.reason,
        signal_number=stopping.signal_number,
        step=module.step,
        results=checkpointing.results,
        is_validated=bool(validation.results),
        conclusion=module.conclude(config),
    )


def resumed_by(module: Trained, run_dir: Path | str) -> str:
    """Say how people continue a run."""
    return module.advice.resume.format(run_dir=run_dir)


def fit_or_end(trainer: Trainer, module: Trained, data: RunData, stopping: StopPolicy) -> None:
    """Train, and end the processes of the run if that fails."""
    try:
        with (
            watched_children(trainer, resumed_by(module, "auto")),
            enforced(lambda: end_children(trainer, grace_s=0.0), stopping.spared),
            distributed.waiting_is_told(is_told=trainer.world_size > 1 and trainer.local_rank == 0),
        ):
            trainer.fit(module, datamodule=data)
    except Interrupted:
        end_children(trainer, grace_s=0.0)
        raise
    except BaseException:
        end_children(trainer, grace_s=GRACE_S)
        raise


def fingerprint(config: Mapping[str, object], *facts: int | str) -> int:
    """Hash all that the ranks of a run must agree on; their clocks may name run_dir differently."""
    text = json.dumps([{**config, "run_dir": None}, facts], sort_keys=True)
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
