"""Members of tars that can seek, also of several that follow one another in a file."""

import io
import tarfile
from collections.abc import Iterator

from vqtrain.errors import BadSampleError

# Read at once where a tar is followed by zeros.
_CHUNK_BYTES = 2**20


def read_members(file: io.BufferedReader) -> Iterator[tarfile.TarInfo]:
    """Read header after header, of one tar after the other, as ``cat a.tar b.tar`` joins them.

    Args:
        file: The tar; it may be read from elsewhere in between.

    Raises:
        TarError: If it is no tar, or is cut off inside of a member.
        BadSampleError: If it is damaged later.
    """
    begin: int | None = 0
    while begin is not None:
        file.seek(begin)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            yield from tar
            end = tar.offset
        begin = _skip_zeros(file, end)
        if begin == end:
            # tarfile treats a damaged header as the end of the tar; a real end is zeros or nothing.
            raise BadSampleError(f"the tar is damaged at byte {end}: what follows is lost")


def _skip_zeros(file: io.BufferedReader, begin: int) -> int | None:
    """Return the position of the first byte from ``begin`` on that is not zero, if there is one."""
    file.seek(begin)
    while chunk := file.read(_CHUNK_BYTES):
        rest = chunk.lstrip(b"\0")
        if rest:
            return begin + len(chunk) - len(rest)
        begin += len(chunk)
    return None
