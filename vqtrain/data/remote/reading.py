"""Bytes of remote files, read through a local cache of their parts."""

import io
import os
import threading
from collections.abc import Callable
from functools import cache, partial
from queue import SimpleQueue
from typing import final

from vqtrain.data.remote.files import fetch
from vqtrain.data.remote.parts import PART_BYTES, Part, keeps_parts
from vqtrain.data.remote.retry import ChangedError, one_line, retried
from vqtrain.data.remote.urls import RemoteFile
from vqtrain.errors import BadSampleError

READ_AHEAD_THREADS = 4


def read(url: str, offset: int, size: int) -> bytes:
    """Read some bytes of a file; each part is fetched once.

    A request that is not answered is retried for about 5 minutes.

    Args:
        url: The text of a ``RemoteFile``: a file as it was when it was indexed.
        offset: Where the bytes begin.
        size: How many.

    Raises:
        BadSampleError: If the file is gone, forbidden or changed.
        DataError: If the server does not answer.
    """
    file = RemoteFile.parse(url)
    if offset + size > file.size:
        raise BadSampleError("the file ends inside this image")
    try:
        return b"".join(
            _read_part(file, number, max(offset, begin) - begin, min(offset + size, end) - begin)
            for number, begin, end in _parts(file, offset, size)
        )
    except FileNotFoundError:
        raise BadSampleError(f"the file is gone from the server: {file.url}") from None
    except ChangedError:
        raise BadSampleError(
            f"the file has changed on the server since it was indexed: {file.url}"
        ) from None
    except PermissionError as error:
        raise BadSampleError(f"no access to {file.url}: {one_line(error)}") from error


def read_ahead(url: str, offset: int, size: int) -> None:
    """Fetch some bytes of a file in the background, in threads of this process.

    Errors are reported when the bytes are read.

    Args:
        url: The text of a ``RemoteFile``.
        offset: Where the bytes begin.
        size: How many.
    """
    if keeps_parts():
        file = RemoteFile.parse(url)
        for number, _begin, _end in _parts(file, offset, min(size, file.size - offset)):
            _fetchers(os.getpid()).request(file, number)


def open_file(url: str) -> io.BufferedReader:
    """Open a file for sequential reads, which raise as ``read`` does."""
    return io.BufferedReader(_Reader(url), buffer_size=64 * 1024)


def _parts(file: RemoteFile, offset: int, size: int) -> list[tuple[int, int, int]]:
    """List the parts that hold some bytes: number, beginning and end."""
    if size <= 0:
        return []
    numbers = range(offset // PART_BYTES, (offset + size - 1) // PART_BYTES + 1)
    return [(i, i * PART_BYTES, min((i + 1) * PART_BYTES, file.size)) for i in numbers]


def _part(file: RemoteFile, number: int) -> Part:
    # Without the commit, because the tag identifies the content.
    source = f"{file.url} {file.size} {file.tag}"
    size = min(PART_BYTES, file.size - number * PART_BYTES)
    return Part(source, number=number, size=size)


def _fetch_with_retries(file: RemoteFile, first: int, end: int) -> bytes:
    return retried(file.url, partial(fetch, file, first, end), is_known=True)


def _read_part(
    file: RemoteFile,
    number: int,
    first: int,
    end: int,
    *,
    fetch: Callable[[RemoteFile, int, int], bytes] = _fetch_with_retries,
) -> bytes:
    """Read from ``first`` to ``end`` of a part, which is fetched if it is not stored."""
    part = _part(file, number)
    begin = number * PART_BYTES
    content = part.load(first, end)
    if content is not None:
        return content
    if not keeps_parts():
        return fetch(file, begin + first, begin + end)
    with part.fetching():
        content = part.load(first, end)
        if content is None:
            whole = fetch(file, begin, min(begin + PART_BYTES, file.size))
            part.store(whole)
            content = whole[first:end]
    return content


@final
class _Fetchers:
    """Daemon threads that prefetch parts."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[tuple[RemoteFile, int]] = SimpleQueue()
        self._pending: set[tuple[RemoteFile, int]] = set()
        for _ in range(READ_AHEAD_THREADS):
            threading.Thread(target=self._work, daemon=True, name="vqtrain-read-ahead").start()

    def request(self, file: RemoteFile, number: int) -> None:
        if (file, number) not in self._pending and not _part(file, number).is_here():
            self._pending.add((file, number))
            self._requests.put((file, number))

    def _work(self) -> None:
        while True:
            file, number = self._requests.get()
            try:
                # Without retries: the reader makes them, and would otherwise wait twice.
                _read_part(file, number, 0, 0, fetch=fetch)
            except Exception:  # reported when the bytes are read
                continue
            finally:
                self._pending.discard((file, number))


@cache
def _fetchers(_process: int) -> _Fetchers:
    """Start the threads of a process, because a fork inherits none."""
    return _Fetchers()


@final
class _Reader(io.RawIOBase):
    """A file that remembers the part it is in."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._size = RemoteFile.parse(url).size
        self._position = 0
        self._number = -1
        self._content = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = bases[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]  # no mmap
        if self._position >= self._size:
            return 0
        number, first = divmod(self._position, PART_BYTES)
        if number != self._number:
            begin = number * PART_BYTES
            read_ahead(self._url, begin + PART_BYTES, 2 * PART_BYTES)
            self._content = read(self._url, begin, min(PART_BYTES, self._size - begin))
            self._number = number
        piece = self._content[first : first + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)
