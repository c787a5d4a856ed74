"""A list of encoded images and where their bytes lie: the one form in which data is known."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import final

import numpy as np
from jaxtyping import Int32, Int64, Shaped

from vqtrain.errors import DataError

# Enough for the tars of one shuffle window, far below the usual limit of 1,024 open files.
MAX_OPEN_FILES = 64

HELD_OUT_FRACTION = 0.02
MIN_HELD_OUT = 16
MAX_HELD_OUT = 5_000


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ImageIndex:
    """Encoded images, each a run of bytes in a file, so that tars and folders are the same thing.

    Holds only numpy arrays and file names: it is cheap to send to another process, and workers
    share its memory.

    Attributes:
        paths: Absolute paths of the files.
        path_ids: Which of ``paths`` holds an image.
        offsets: Where an image begins in its file, in bytes.
        sizes: Length of an image, in bytes.
        keys: Names of the images, as utf-8 bytes; not necessarily unique.
    """

    paths: tuple[str, ...]
    path_ids: Int32[np.ndarray, " n"]
    offsets: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]
    keys: Shaped[np.ndarray, " n"]

    def __post_init__(self) -> None:
        """Forget the files opened so far: since then they may have been replaced by new ones."""
        _open.cache_clear()

    def __len__(self) -> int:
        """Count the images."""
        return len(self.offsets)

    def key(self, image_id: int) -> str:
        """Name an image."""
        return os.fsdecode(self.keys[image_id])

    def path(self, image_id: int) -> str:
        """Name the file that holds an image."""
        return self.paths[self.path_ids[image_id]]

    def read(self, image_id: int) -> bytes:
        """Read the encoded bytes of an image.

        Args:
            image_id: Position in this index, in [0, n).

        Raises:
            DataError: If the file cannot be read or has become shorter.
        """
        path, size = self.path(image_id), int(self.sizes[image_id])
        try:
            encoded = _open(path).read(int(self.offsets[image_id]), size)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        if len(encoded) != size:
            raise DataError(
                f"{path} ends inside image {self.key(image_id)!r}: "
                "it has changed since this run indexed it"
            )
        return encoded

    def select(self, image_ids: Int64[np.ndarray, " m"]) -> "ImageIndex":
        """Keep some of the images, in the order given."""
        return ImageIndex(
            paths=self.paths,
            path_ids=self.path_ids[image_ids],
            offsets=self.offsets[image_ids],
            sizes=self.sizes[image_ids],
            keys=self.keys[image_ids],
        )

    @staticmethod
    def concatenate(indexes: Sequence["ImageIndex"]) -> "ImageIndex":
        """Put indexes one after another; of none, make an empty one."""
        first_ids = np.cumsum([0, *(len(index.paths) for index in indexes)])
        path_ids = [
            index.path_ids + np.int32(first)
            for index, first in zip(indexes, first_ids[:-1], strict=True)
        ]
        return ImageIndex(
            paths=tuple(path for index in indexes for path in index.paths),
            path_ids=np.concatenate([np.zeros(0, np.int32), *path_ids]),
            offsets=np.concatenate([np.zeros(0, np.int64), *(i.offsets for i in indexes)]),
            sizes=np.concatenate([np.zeros(0, np.int64), *(i.sizes for i in indexes)]),
            keys=np.concatenate([np.zeros(0, "S1"), *(i.keys for i in indexes)]),
        )


def hold_out(index: ImageIndex) -> tuple[ImageIndex, ImageIndex]:
    """Split off images for validation: the 2 % with the smallest hash of their key.

    At least 16 and at most 5,000, but never more than half. The choice follows the names alone:
    neither the order of the index nor later additions reshuffle it.

    Returns:
        The images to train on and the images held out, both in the order of the index.

    Raises:
        DataError: If there are fewer than 2 images.
    """
    n = len(index)
    if n < 2:
        raise DataError(f"cannot hold out images of {n}: set data.val to images for validation")
    count = min(max(round(HELD_OUT_FRACTION * n), MIN_HELD_OUT), MAX_HELD_OUT, n // 2)
    digests = b"".join(blake2b(key, digest_size=8).digest() for key in index.keys.tolist())
    hashes = np.frombuffer(digests, dtype=">u8")
    # Shards often reuse keys: equal ones are told apart by file and offset, not by their order.
    path_ranks = np.argsort(np.argsort(np.array(index.paths)))[index.path_ids]
    is_held_out = np.zeros(n, dtype=bool)
    is_held_out[np.lexsort((index.offsets, path_ranks, hashes))[:count]] = True
    return index.select(np.flatnonzero(~is_held_out)), index.select(np.flatnonzero(is_held_out))


class _OpenFile:
    """A file to read from by position, which no fork, thread or other reader can disturb."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        # Closed by its last user and not by the cache, so that dropping it is always safe.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@lru_cache(maxsize=MAX_OPEN_FILES)
def _open(path: str) -> _OpenFile:
    return _OpenFile(path)
