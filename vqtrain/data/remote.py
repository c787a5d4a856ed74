"""Files behind URLs, read through a cache of their parts on this machine."""

import io
import os
import threading
from collections.abc import Callable
from functools import cache, partial
from queue import SimpleQueue
from typing import final

from vqtrain.data.cache import PART_BYTES, Part, keeps_parts
from vqtrain.data.servers import SCHEMES, ChangedError, RemoteFile, ask, fetch, one_line
from vqtrain.errors import BadSampleError

READ_AHEAD_THREADS = 4


def is_url(path: str) -> bool:
    """Tell whether a path names a file on a server."""
    return path.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def shown(path: str) -> str:
    """Name a file as its user knows it: the URL in an index also says what was found there.

    Args:
        path: A path of an ``ImageIndex``.
    """
    return RemoteFile.parse(path).url if is_url(path) else path


def read(url: str, offset: int, size: int) -> bytes:
    """Read some bytes of a file, each part of which is fetched once.

    A server that does not answer is asked again for about 5 minutes.

    Args:
        url: The text of a ``RemoteFile``: a file as it was when it was indexed.
        offset: Where the bytes begin.
        size: How many.

    Raises:
        BadSampleError: If the file is gone, is forbidden or has changed.
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
    """Begin to bring some bytes of a file to this machine, in threads of this process.

    What goes wrong is said when the bytes are read.

    Args:
        url: The text of a ``RemoteFile``.
        offset: Where the bytes begin.
        size: How many.
    """
    if keeps_parts():
        file = RemoteFile.parse(url)
        for number, _begin, _end in _parts(file, offset, min(size, file.size - offset)):
            _fetchers(os.getpid()).ask(file, number)


def open_file(url: str) -> io.BufferedReader:
    """Open a file to read it from its beginning to its end; reads raise as ``read`` does."""
    return io.BufferedReader(_Reader(url), buffer_size=64 * 1024)


def _parts(file: RemoteFile, offset: int, size: int) -> list[tuple[int, int, int]]:
    """List the parts that hold some bytes: number, beginning and end."""
    if size <= 0:
        return []
    numbers = range(offset // PART_BYTES, (offset + size - 1) // PART_BYTES + 1)
    return [(i, i * PART_BYTES, min((i + 1) * PART_BYTES, file.size)) for i in numbers]


def _part(file: RemoteFile, number: int) -> Part:
    # Not by its commit, as the tag says all of the content.
    source = f"{file.url} {file.size} {file.tag}"
    size = min(PART_BYTES, file.size - number * PART_BYTES)
    return Part(source, number=number, size=size)


def _patiently(file: RemoteFile, first: int, end: int) -> bytes:
    return ask(file.url, partial(fetch, file, first, end), is_known=True)


def _read_part(
    file: RemoteFile,
    number: int,
    first: int,
    end: int,
    *,
    fetch: Callable[[RemoteFile, int, int], bytes] = _patiently,
) -> bytes:
    """Read from ``first`` to ``end`` of a part, which is fetched if it is not here."""
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
    """Threads that fetch parts ahead; they never keep their process from ending."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[RemoteFile, int]] = SimpleQueue()
        self._pending: set[tuple[RemoteFile, int]] = set()
        for _ in range(READ_AHEAD_THREADS):
            threading.Thread(target=self._work, daemon=True, name="vqtrain-read-ahead").start()

    def ask(self, file: RemoteFile, number: int) -> None:
        if (file, number) not in self._pending and not _part(file, number).is_here():
            self._pending.add((file, number))
            self._asked.put((file, number))

    def _work(self) -> None:
        while True:
            file, number = self._asked.get()
            try:
                # Asked once: patience is for the reader, who would otherwise wait for it twice.
                _read_part(file, number, 0, 0, fetch=fetch)
            except Exception:  # it is said when the bytes are read
                continue
            finally:
                self._pending.discard((file, number))


@cache
def _fetchers(_process: int) -> _Fetchers:
    """Start the threads of a process: a fork takes none along."""
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
