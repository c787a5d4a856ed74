"""The folder of a probe: whose it is, what is done in it, and with what."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vqtrain.app.parts.compose import flatten
from vqtrain.errors import CheckpointError, ConfigError, as_failure
from vqtrain.generation.results import FILE, ProbeReport, read_probe

LOCK, LOGS, TOKENIZER, TRANSFORMER = ".lock", "logs", "tokenizer", "transformer"
TRAIN, VAL = "tokens/train", "tokens/val"
SAMPLES = "samples.png"


def read_begun(folder: Path, out: str) -> ProbeReport | None:
    """Read what a probe of one tokenizer has found so far; None if there is none yet.

    Raises:
        ConfigError: If the folder holds something else.
    """
    if not holds_something(folder):
        return None
    if (folder / FILE).is_file() and not (folder / TOKENIZER).is_dir() and is_of_several(folder):
        raise ConfigError(f"out={out} holds a probe of several tokenizers: give another folder")
    if not (folder / FILE).is_file():
        raise ConfigError(f"out={out} is not of vqtrain probe: give another folder")
    return read_probe(folder)


def check_several(folder: Path, out: str) -> None:
    """Refuse a folder that is not of a probe of several tokenizers.

    Raises:
        ConfigError: If it holds something else.
    """
    if not holds_something(folder) or is_of_several(folder):
        return
    if (folder / FILE).is_file():
        raise ConfigError(f"out={out} holds a probe of one tokenizer: give another folder")
    raise ConfigError(f"out={out} is not of vqtrain probe: give another folder")


def is_of_several(folder: Path) -> bool:
    """Say whether a folder holds those of several tokenizers."""
    return (folder / LOGS).is_dir() and not (folder / TOKENIZER).exists()


def holds_something(folder: Path) -> bool:
    """Say whether something has that name, other than an empty folder."""
    if folder.is_dir():
        return any(path.name != LOCK for path in folder.iterdir())
    return os.path.lexists(folder)


def check_same(before: ProbeReport, now: ProbeReport, out: str) -> None:
    """Refuse to continue with other images, or with another value of a key that is in use.

    Raises:
        ConfigError: Naming the first difference.
    """
    held = f"out={out} holds a probe"
    for side, images in now.images.items():
        if side in before.images and before.images[side] != images:
            raise ConfigError(f"{held} with other {side} images: give another out")
    known = flatten(before.settings)
    for key, value in flatten(now.settings).items():
        # As JSON, where a tuple is a list.
        if key in known and json.dumps(known[key]) != json.dumps(value):
            raise ConfigError(
                f"{held} with {key}={typed(known[key])}, not {typed(value)}: give "
                f"{key}={typed(known[key])}, or another out"
            )


def typed(value: object) -> str:
    """Write the value of a key as a user types it."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


@contextmanager
def claimed(folder: Path, command: str = "probe") -> Iterator[None]:
    """Return a context in which no other command of a name writes to a folder, which is created.

    It is removed if it stays empty.

    Raises:
        CheckpointError: If another one does.
        ConfigError: If it cannot be created.
        VqtrainError: If the work in it fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        with suppress(NotImplementedError):  # no locks on that disk
            lock.acquire(blocking=False)
    except Timeout as error:
        raise CheckpointError(f"{folder} is in use by another vqtrain {command}") from error
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from error
    try:
        with as_failure({OSError: lambda error: said_of(error, folder)}):
            yield
    finally:
        lock.release()
        if not holds_something(folder):
            with suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()


def said_of(error: OSError, folder: Path) -> str:
    """Say that a folder cannot be written."""
    return f"cannot write {error.filename or folder}: {error.strerror or error}"
