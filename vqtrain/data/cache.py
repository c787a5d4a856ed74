"""The folder of caches (indexes of tars, the demo, parts of remote files), and whole writes."""

import os
import threading
from contextlib import suppress
from pathlib import Path

from vqtrain.errors import DataError


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
