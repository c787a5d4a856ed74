"""Checkpoints: everything a run needs to continue as if it had never stopped.

A checkpoint holds tensors and plain data only, and inside it the tokenizer in the form of a
tokenizer directory, so that it can be used without this package's training code.
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
from vqtrain.training.data_module import StreamState, TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.validation import Validation

NAME = "step_{:08d}.ckpt"
NUMBERED = re.compile(r"step_\d{8,}\.ckpt")


class DiscriminatorState(TypedDict):
    """What a run with a discriminator continues from."""

    weights: dict[str, Tensor]
    optimizer: dict[str, object]
    adversarial: dict[str, Tensor]


class TrainingState(TypedDict):
    """The part of a checkpoint that only training needs."""

    step: int
    samples: int
    images: str
    validation_images: NotRequired[str]  # not in the oldest files
    places: StreamState | None
    weights: dict[str, Tensor]
    optimizer: dict[str, object]
    discriminator: DiscriminatorState | None
    alignment: NotRequired[dict[str, Tensor]]  # not in older files
    frozen: NotRequired[str | None]
    window: dict[str, object]
    scaler: NotRequired[dict[str, float]]  # not in older files; empty unless in 16-mixed
    skipped_in_row: int
    skipped_steps: int
    best: float | None
    results: dict[str, float]
    callbacks: dict[str, dict[str, object]]


class TrainingCheckpoint(storage.Checkpoint):
    """A checkpoint file."""

    config: dict[str, object]
    training: TrainingState


def read(file: Path, *, mmap: bool = False) -> TrainingCheckpoint:
    """Read a checkpoint to continue from; with ``mmap`` its tensors only where they are used.

    Raises:
        CheckpointError: If it is damaged, or not a checkpoint of vqtrain.
    """
    checkpoint = storage.read_checkpoint(file, mmap=mmap)
    if not isinstance(checkpoint.get("training"), dict):
        raise CheckpointError(f"cannot continue from {file}: it holds no training state")
    return cast(TrainingCheckpoint, checkpoint)


def has_other_validation(state: TrainingState, digest: str) -> bool:
    """Say whether a checkpoint was validated on other images than those of a digest."""
    return state.get("validation_images", digest) != digest


def restore(module: TokenizerTraining, checkpoint: TrainingCheckpoint) -> None:
    """Restore networks, optimizers and counters from a checkpoint."""
    state = checkpoint["training"]
    module.tokenizer.load_weights(state["weights"])
    module.frozen.digest = state.get("frozen")
    module.begin_average()
    if module.average is not None:
        module.average.load_state_dict(checkpoint["tokenizer"]["weights"])
    optim = module.optim
    optim.generator.load_state_dict(state["optimizer"])
    if optim.discriminator is not None:
        saved, objective = state["discriminator"], module.objective
        assert saved is not None, "a resumed run cannot change its discriminator"
        assert objective.discriminator is not None
        objective.discriminator.load_state_dict(saved["weights"])
        optim.discriminator.load_state_dict(saved["optimizer"])
        objective.adversarial.load_state_dict(saved["adversarial"])
    if module.objective.alignment is not None:
        module.objective.alignment.load_state_dict(state["alignment"])
    module.window.load_state_dict(state["window"], module.device)
    module.step = state["step"]
    optim.scaler.load_state_dict(state.get("scaler", {}))
    optim.skipped_in_row, optim.skipped_steps = state["skipped_in_row"], state["skipped_steps"]


@final
class Checkpointing:
    """Writes checkpoints and the tokenizer directory.

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
        data: TrainingData,
        callbacks: Mapping[str, Callback],
        resumed: TrainingState | None,
    ) -> None:
        self.callbacks = callbacks
        self.run_dir, self.folder = run_dir, run_dir / "checkpoints"
        self.config, self.data = config, data
        self.first_step = resumed["step"] if resumed else 0
        is_comparable = resumed and not has_other_validation(resumed, data.validation.digest)
        self.best = resumed["best"] if resumed and is_comparable else None
        self.results = dict(resumed["results"]) if resumed else {}
        self.places: StreamState | None = None

    def save_if_due(
        self, module: TokenizerTraining, validation: Validation, *, is_last: bool
    ) -> None:
        """Write what is due: at its interval, at a new best validation, at the last step."""
        settings = module.settings
        is_due = settings.is_due(settings.checkpoint_every, module.step) or is_last
        score = validation.score
        is_best = score is not None and (self.best is None or score > self.best)
        self.results = validation.results or self.results
        if is_best:
            self.best = score
        if is_due or is_best:
            module.window.gather()
            self.places = self.data.stream_state()
            checkpoint = self.collect(module)
            if distributed.rank() == 0:
                keep = module.settings.keep_checkpoints
                self.save(checkpoint, keep=keep, is_due=is_due, is_best=is_best)

    def save(
        self, checkpoint: TrainingCheckpoint, *, keep: int, is_due: bool, is_best: bool
    ) -> None:
        """Write one file, and link the other names to it."""
        self.folder.mkdir(exist_ok=True)
        step = checkpoint["training"]["step"]
        file = self.folder / (NAME.format(step) if is_due else "best.ckpt")
        try:
            # torch raises its own error instead of the file's, which is its context.
            storage.write_whole(file, lambda handle: torch.save(checkpoint, handle))
            if is_due:
                link(file, self.folder / "last.ckpt")
                if is_best:
                    link(file, self.folder / "best.ckpt")
                self.prune(file, keep)
        except (OSError, RuntimeError) as error:
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            raise CheckpointError(
                f"cannot write {file}: {reason}; the checkpoints before it are whole"
            ) from error
        tokenizer = checkpoint["tokenizer"]
        if is_due:
            config = cast(dict[str, object], tokenizer["config"])
            storage.write(self.run_dir / "tokenizer", config, tokenizer["weights"])

    def collect(self, module: TokenizerTraining) -> TrainingCheckpoint:
        """Collect what a checkpoint holds; collective, and complete on the first rank alone."""
        tokenizer = module.tokenizer
        raw = copy_of(tokenizer.state_dict())
        weights = copy_of(module.average.state_dict()) if module.average else raw
        alignment = module.objective.alignment
        batches = (module.step - self.first_step) * module.settings.accumulate
        samples = self.data.samples_at(batches)
        tokenizer.training_summary = {
            "name": self.config["name"],
            "step": module.step,
            "samples": samples,
            "image_size": self.data.settings.image_size,
            "crop": self.data.settings.crop,
            "metrics": self.results,
        }
        return {
            "tokenizer": {"config": storage.stamped(tokenizer.config), "weights": weights},
            "config": dict(self.config),
            "training": {
                "step": module.step,
                "samples": samples,
                "images": self.data.training.digest,
                "validation_images": self.data.validation.digest,
                "places": self.places,
                "weights": raw,
                "frozen": module.frozen.digest,
                "optimizer": optimizer_state(module.optim.generator),
                "discriminator": discriminator_state(module),
                "alignment": {} if alignment is None else copy_of(alignment.state_dict()),
                "window": module.window.state_dict(),
                "scaler": module.optim.scaler.state_dict(),
                "skipped_in_row": module.optim.skipped_in_row,
                "skipped_steps": module.optim.skipped_steps,
                "best": self.best,
                "results": self.results,
                "callbacks": states_of(self.callbacks),
            },
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


def discriminator_state(module: TokenizerTraining) -> DiscriminatorState | None:
    """Collect the state of the discriminator, if there is one."""
    objective, optimizer = module.objective, module.optim.discriminator
    if optimizer is None or objective.discriminator is None:
        return None
    return {
        "weights": copy_of(objective.discriminator.state_dict()),
        "optimizer": optimizer_state(optimizer),
        "adversarial": copy_of(objective.adversarial.state_dict()),
    }


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
