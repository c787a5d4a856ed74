"""Parts of remote files, kept on this machine and shared by all of its processes."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import final

from filelock import FileLock

from vqtrain.data.cache import cache_folder, write_whole
from vqtrain.errors import DataError

# A remote file is fetched in parts of this size: long enough for a server's full speed, short
# enough for a shuffle that needs a few images of each.
PART_BYTES = 4 * 2**20

DEFAULT_LIMIT_GB = 50.0
# Above the limit, parts are deleted down to this share of it. A process checks after this number of
# new parts, because a check takes time.
KEPT_FRACTION = 0.9
PARTS_BETWEEN_TRIMS = 16
# The time of the last use is updated no more often than this.
USED_AGAIN_S = 600.0
# After a part could not be stored, none is stored for a while.
DISK_PAUSE_S = 60.0
# A lock of a part that is held for longer is stale.
LOCK_TIMEOUT_S = 330.0
_NUM_LOCKS = 256


def parts_limit() -> int:
    """Return the disk limit for parts of remote files: ``VQTRAIN_CACHE_GB``, else 50 GB.

    Returns:
        Bytes; 0 to keep no parts.

    Raises:
        DataError: If the variable is no number of at least 0.
    """
    text = os.environ.get("VQTRAIN_CACHE_GB", "").strip()
    try:
        gigabytes = float(text) if text else DEFAULT_LIMIT_GB
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise DataError(f"VQTRAIN_CACHE_GB must be a number of at least 0, got {text!r}")
    return int(gigabytes * 1e9)


@final
class Part:
    """An aligned part of a remote file, kept as a file that all processes of this machine share.

    Args:
        source: Names the file and its content.
        number: Which part of it, from 0.
        size: Length of the part, in bytes.
    """

    def __init__(self, source: str, *, number: int, size: int) -> None:
        name = blake2b(source.encode(), digest_size=16).hexdigest()
        self._folder = cache_folder() / "parts"
        self._path = self._folder / name[:2] / f"{name}-{number}"
        self._size = size
        self._lock = (int(name[:8], 16) + number) % _NUM_LOCKS

    def load(self, first: int, end: int) -> bytes | None:
        """Read some bytes of it.

        Args:
            first: Where they begin in this part.
            end: Where they end, at most the size of the part.

        Returns:
            The bytes; None if the part is not stored.
        """
        try:
            with self._path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if status.st_size != self._size:
                    return None
                if time.time() - status.st_mtime > USED_AGAIN_S:
                    os.utime(file.fileno())
                content = os.pread(file.fileno(), end - first, first)
        except OSError:
            return None
        return content if len(content) == end - first else None

    def is_here(self) -> bool:
        """Tell whether it is stored."""
        return self.load(0, 0) is not None

    def store(self, content: bytes) -> None:
        """Store it, if the disk allows; sometimes delete the least recently used parts."""
        try:
            write_whole(self._path, content)
        except OSError:
            _pause()
            return
        _trim_sometimes(self._folder)

    @contextmanager
    def fetching(self) -> Iterator[None]:
        """Lock the part, so that others do not fetch it too; no lock if the disk has no locks.

        Parts share a few locks, because one per part would double the number of files.
        """
        with ExitStack() as stack:
            try:
                path = self._folder / "locks" / f"{self._lock:02x}"
                path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(path, timeout=LOCK_TIMEOUT_S, poll_interval=0.01)
                stack.enter_context(lock)
            except TimeoutError:
                pass
            except (OSError, NotImplementedError):
                _pause()
            yield


class _State:
    """What this process knows of the folder."""

    paused_until_s = -math.inf
    stored = 0


def keeps_parts() -> bool:
    """Tell whether parts are stored: not switched off, and the disk is not full."""
    return time.monotonic() >= _State.paused_until_s and parts_limit() > 0


def _pause() -> None:
    _State.paused_until_s = time.monotonic() + DISK_PAUSE_S


def _trim_sometimes(folder: Path) -> None:
    _State.stored += 1
    if _State.stored % PARTS_BETWEEN_TRIMS == 1 % PARTS_BETWEEN_TRIMS:
        # One process does it for all.
        with suppress(OSError, NotImplementedError), FileLock(folder / "trim.lock", timeout=0):
            _trim(folder)


def _trim(folder: Path) -> None:
    found = []
    for group in folder.iterdir():
        if group.is_dir() and group.name != "locks":
            for path in group.iterdir():
                with suppress(OSError):
                    status = path.stat()
                    found.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in found)
    if total > parts_limit():
        for _, size, path in sorted(found):
            if total <= KEPT_FRACTION * parts_limit():
                return
            with suppress(OSError):
                path.unlink()
                total -= size
