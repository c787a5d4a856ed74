"""The folder of caches (indexes of tars, the demo, parts of remote files), and whole writes."""

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from vqtrain.errors import DataError

Value = TypeVar("Value")


def cache_folder() -> Path:
    """Find the folder of caches: ``VQTRAIN_CACHE``, else ``~/.cache/vqtrain``.

    It need not exist yet. Everything in it can be deleted at any time.

    Returns:
        An absolute path.

    Raises:
        DataError: If there is neither the variable nor a home folder.
    """
    configured = os.environ.get("VQTRAIN_CACHE")
    try:
        folder = Path(configured).expanduser() if configured else Path.home() / ".cache" / "vqtrain"
    except RuntimeError:
        raise DataError("there is no home folder: set VQTRAIN_CACHE to a folder") from None
    return folder.absolute()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that others see all of it or nothing.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def cached(
    entry: Path,
    *,
    load: Callable[[], Value | None],
    compute: Callable[[], Value],
    pack: Callable[[Value], bytes],
) -> Value:
    """Take a value from the cache, or compute it and leave it there, once on each machine.

    If the cache cannot be written, it is computed every time.

    Args:
        entry: Its file in the folder of caches.
        load: Reads the file; None if it is not there or does not fit.
        compute: Finds the value otherwise.
        pack: Gives the content of the file.
    """
    found = load()
    if found is not None:
        return found
    with ExitStack() as stack:
        # The other ranks of a machine wait. NotImplementedError: no locks on that disk.
        with suppress(OSError, NotImplementedError):
            entry.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(entry.with_suffix(".lock")))
        found = load()
        if found is None:
            found = compute()
            with suppress(OSError):
                write_whole(entry, pack(found))
        return found
