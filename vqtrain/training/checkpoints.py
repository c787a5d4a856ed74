"""Checkpoints: everything a run needs to continue as if it had never stopped.

A checkpoint holds tensors and plain data only. What of it is used is the module's to say.
"""

import io
import os
import pickle
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NotRequired, TypedDict, cast, final

import torch
from lightning.pytorch import Callback
from torch import Tensor

from vqtrain import distributed
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.optim.optimizer import NetworkOptimizer
from vqtrain.tokenizer import storage
from vqtrain.training.trained import RunData, Trained, Validator

BEST = "best.ckpt"
NAME = "step_{:08d}.ckpt"
NUMBERED = re.compile(r"step_\d{8,}\.ckpt")


class TrainingState(TypedDict):
    """The part of a checkpoint that only training needs; a module adds keys of its own."""

    step: int
    samples: int
    images: str
    validation_images: NotRequired[str]  # not in the oldest files
    places: object
    scaler: NotRequired[dict[str, float]]  # not in older files; empty unless in 16-mixed
    skipped_in_row: int
    skipped_steps: int
    best: float | None
    results: dict[str, float]
    callbacks: dict[str, dict[str, object]]


class TrainingCheckpoint(TypedDict):
    """A checkpoint file, besides what is used of it."""

    config: dict[str, object]
    training: TrainingState


def read(file: Path, *, mmap: bool = False) -> TrainingCheckpoint:
    """Read a checkpoint to continue from; with ``mmap`` its tensors only where they are used.

    Raises:
        CheckpointError: If it is damaged, or not a checkpoint of vqtrain.
    """
    checkpoint = storage.read_plain(file, mmap=mmap)
    if not isinstance(checkpoint.get("training"), dict):
        raise CheckpointError(f"cannot continue from {file}: it holds no training state")
    return cast(TrainingCheckpoint, checkpoint)


def has_other_validation(state: TrainingState, digest: str) -> bool:
    """Say whether a checkpoint was validated on other images than those of a digest."""
    return state.get("validation_images", digest) != digest


def restore(module: Trained, checkpoint: TrainingCheckpoint) -> None:
    """Restore a module, its optimizers and counters from a checkpoint."""
    module.restore(checkpoint)
    state, optim = checkpoint["training"], module.optim
    module.step = state["step"]
    optim.scaler.load_state_dict(state.get("scaler", {}))
    optim.skipped_in_row, optim.skipped_steps = state["skipped_in_row"], state["skipped_steps"]


@final
class Checkpointing:
    """Writes checkpoints, and what is exported of them.

    Args:
        run_dir: The run directory.
        config: The run's configuration, as plain data.
        data: Where the position in the data comes from.
        callbacks: The user's own, whose states are part of a checkpoint.
        resumed: The state that the run continues from, or None.

    Attributes:
        results: What the newest validation measured.
    """

    def __init__(
        self,
        *,
        run_dir: Path,
        config: Mapping[str, object],
        data: RunData,
        callbacks: Mapping[str, Callback],
        resumed: TrainingState | None,
    ) -> None:
        self.callbacks = callbacks
        self.run_dir, self.folder = run_dir, run_dir / "checkpoints"
        self.config, self.data = config, data
        self.first_step = resumed["step"] if resumed else 0
        is_comparable = resumed and not has_other_validation(resumed, data.validation_digest)
        self.best = resumed["best"] if resumed and is_comparable else None
        self.results = dict(resumed["results"]) if resumed else {}

    def save_if_due(self, module: Trained, validation: Validator, *, is_last: bool) -> None:
        """Write what is due: at its interval, at a new best validation, at the last step."""
        settings = module.settings
        is_due = settings.is_due(settings.checkpoint_every, module.step) or is_last
        score = validation.score
        is_best = score is not None and (self.best is None or score > self.best)
        self.results = validation.results or self.results
        if is_best:
            self.best = score
        if is_due or is_best:
            checkpoint = self.collect(module)
            if distributed.rank() == 0:
                self.save(module, checkpoint, is_due=is_due, is_best=is_best)

    def save(
        self, module: Trained, checkpoint: Mapping[str, object], *, is_due: bool, is_best: bool
    ) -> None:
        """Write one file, and link the other names to it."""
        self.folder.mkdir(exist_ok=True)
        file = self.folder / (NAME.format(module.step) if is_due else BEST)
        try:
            # torch raises its own error instead of the file's, which is its context.
            storage.write_whole(file, lambda handle: torch.save(checkpoint, handle))
            if is_due:
                link(file, self.folder / "last.ckpt")
                if is_best:
                    link(file, self.folder / BEST)
                self.prune(file, module.settings.keep_checkpoints)
        except (OSError, RuntimeError) as error:
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise CheckpointError(
                f"cannot write {file}: {reason}; the checkpoints before it are whole"
            ) from error
        if is_due:
            module.export(checkpoint, self.run_dir)

    def collect(self, module: Trained) -> dict[str, object]:
        """Collect what a checkpoint holds; collective, and complete on the first rank alone."""
        data, optim = self.data, module.optim
        batches = (module.step - self.first_step) * module.settings.accumulate
        samples = data.samples_at(batches)
        of_run = {"name": self.config.get("name"), "step": module.step, "samples": samples}
        contents = module.contents({**of_run, **data.summary, "metrics": self.results})
        training: TrainingState = {
            "step": module.step,
            "samples": samples,
            "images": data.training_digest,
            "validation_images": data.validation_digest,
            "places": data.places(),
            "scaler": optim.scaler.state_dict(),
            "skipped_in_row": optim.skipped_in_row,
            "skipped_steps": optim.skipped_steps,
            "best": self.best,
            "results": self.results,
            "callbacks": states_of(self.callbacks),
        }
        return {
            **contents.result,
            "config": dict(self.config),
            "training": {**training, **contents.state},
        }

    def prune(self, newest: Path, keep: int) -> None:
        """Delete all but the last ``keep`` checkpoints up to the newest one.

        Those of a later step were written before the run was resumed from an earlier checkpoint.
        Copies that a user made are no concern of the run, whatever they are called.
        """
        files = [file for file in numbered(self.folder) if is_own(file)]
        position = files.index(newest)
        for file in [*files[: max(0, position + 1 - keep)], *files[position + 1 :]]:
            file.unlink()


def states_of(callbacks: Mapping[str, Callback]) -> dict[str, dict[str, object]]:
    """Return a copy of the states of callbacks, as a checkpoint holds it.

    Raises:
        ConfigError: If a state holds more than tensors and plain data.
    """
    states = {}
    for name, callback in callbacks.items():
        buffer = io.BytesIO()
        try:
            torch.save(callback.state_dict(), buffer)
            buffer.seek(0)
            states[name] = torch.load(buffer, weights_only=True)
        except (pickle.PickleError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"callbacks.{name}: its state_dict() must hold tensors and plain data alone, so "
                f"that checkpoints load without running code: {str(error).splitlines()[0]}"
            ) from error
    return states


def copy_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy whole weights to the CPU of the first rank, in torch's own memory layout; collective."""
    copies = {}
    for name, tensor in weights.items():
        whole = distributed.whole(tensor.detach())
        if distributed.rank() == 0:
            copies[name] = whole.cpu().clone(memory_format=torch.contiguous_format)
    return copies


def optimizer_state(optimizer: NetworkOptimizer) -> dict[str, object]:
    """Collect the state of an optimizer, of whole tensors on the first rank; collective."""
    state = optimizer.state_dict()
    for values in state["state"].values():
        values.update(copy_of({k: v for k, v in values.items() if distributed.is_split(v)}))
    return state


def numbered(folder: Path) -> list[Path]:
    """List the files of a folder that are called like checkpoints of steps, in their order."""
    return sorted(
        (file for file in folder.glob("step_*.ckpt") if NUMBERED.fullmatch(file.name)),
        key=step_in_name,
    )


def step_in_name(file: Path) -> int:
    """Return the step after which a checkpoint is called."""
    return int(file.stem.removeprefix("step_"))


def is_own(file: Path) -> bool:
    """Say whether a file holds the step that it is called after: no damaged one, no copy does."""
    return held_step(file) == step_in_name(file)


def held_step(file: Path) -> int | None:
    """Return the step that a checkpoint holds; None if it cannot be read."""
    try:
        status = file.stat()
    except OSError:
        return None
    return _held_step(file, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _held_step(file: Path, *_status: int) -> int | None:
    try:
        return read(file, mmap=True)["training"]["step"]
    except (CheckpointError, KeyError):
        return None


def link(file: Path, name: Path) -> None:
    """Give a file a second name, atomically; copy it where links are not supported."""
    temporary = name.with_name(f".{name.name}.new")
    temporary.unlink(missing_ok=True)
    try:
        os.link(file, temporary)
    except OSError:
        with suppress(FileNotFoundError):
            temporary.unlink()
        storage.write_whole(temporary, lambda handle: handle.write(file.read_bytes()))
    temporary.replace(name)
