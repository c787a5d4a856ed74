"""Where a command writes."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

from filelock import FileLock, Timeout

from vqtrain.errors import CheckpointError, ConfigError, Interrupted, as_failure, require
from vqtrain.ops.paths import expand
from vqtrain.ops.signals import heard

Result = TypeVar("Result")
LOCK = ".lock"


def folder_of(value: str, key: str = "out") -> Path:
    """Read a key that names a folder to write to.

    Raises:
        ConfigError: If it names none.
    """
    require(value != "", f"{key} must name a folder, got nothing")
    return expand(value)


def new_folder(out: str) -> Path:
    """Read the key ``out``, and refuse what exists.

    Raises:
        ConfigError: If something has that name.
    """
    folder = folder_of(out)
    if os.path.lexists(folder):
        raise ConfigError(f"out={out} exists already: give a folder that does not")
    return folder


def fill_whole(out: Path, fill: Callable[[Path], Result]) -> Result:
    """Fill a folder next to ``out`` and move it there; if that fails, nothing is left.

    Args:
        out: A folder that does not exist.
        fill: Writes into the folder that it is given.

    Returns:
        What ``fill`` returns.

    Raises:
        CheckpointError: If it cannot be written or moved.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            result = fill(unfinished)
            unfinished.chmod(0o755)  # mkdtemp makes folders that only their owner can read
            unfinished.rename(out)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"cannot write {out}: {error.strerror or error}") from error
    return result


def refuse_inside(out: Path, images: str | list[str | dict[str, object]]) -> None:
    """Refuse to write among the images, where what is written would be taken for some of them.

    Raises:
        ConfigError: If ``out`` is there.
    """
    for source in images if isinstance(images, list) else [images]:
        home = Path(os.path.expanduser(str(source))).absolute()  # noqa: PTH111 - may be no path
        if home.is_dir() and out.absolute().is_relative_to(home):
            raise ConfigError(f"out={out} lies inside images={source}: give another folder")


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Return a context in which signals end what is under way in order, as Ctrl-C does."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in heard()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def holds_something(folder: Path) -> bool:
    """Say whether something has that name, other than an empty folder."""
    if folder.is_dir():
        return any(path.name != LOCK for path in folder.iterdir())
    return os.path.lexists(folder)


@contextmanager
def claimed(folder: Path, command: str) -> Iterator[None]:
    """Return a context in which no other call of a command writes to a folder, which is created.

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
