"""An index of encoded samples and the positions of their bytes, for all kinds of sources."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import final

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Shaped

from vqtrain.data.faults import Fault
from vqtrain.data.media import IMAGE, Media
from vqtrain.data.remote import reading
from vqtrain.data.remote.urls import is_url, shown
from vqtrain.data.sources.frames import FOLDER_END, read_frames
from vqtrain.errors import BadSampleError, DataError

# Enough for the tars of one shuffle window, far below the usual limit of 1,024 open files.
MAX_OPEN_FILES = 256

# Linux reads ahead at most this much per request.
READ_AHEAD_BYTES = 128 * 1024

HELD_OUT_FRACTION = 0.02
MIN_HELD_OUT = 16
MAX_HELD_OUT = 5_000

# Attributes of each image that name no file.
_PLAIN = ("offsets", "sizes", "keys", "weights", "ratios", "stills")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class SampleIndex:
    """Encoded samples, each a range of bytes in a file, so that tars and folders are treated alike.

    A file may be local or remote.

    It holds only numpy arrays and file names: it is cheap to send to another process, and workers
    share its memory.

    Attributes:
        paths: Absolute paths of the files, or their URLs; that of a folder of frames ends in a
            slash.
        path_ids: Which of ``paths`` holds an image.
        offsets: Where an image begins in its file, in bytes.
        sizes: Length of an image, in bytes.
        keys: Names of the images, as utf-8 bytes; not necessarily unique.
        weights: How often an image is seen in an epoch, above 0.
        ratios: Width / height of each image, upright; NaN where it is not known.
        stills: Which of the clips are images, which are clips of one frame.
        faults: Files and images that were found unusable by indexing.
        others: How many files were not taken because they are neither samples nor tars, by suffix.
        media: What the samples are of.
    """

    paths: tuple[str, ...]
    path_ids: Int32[np.ndarray, " n"]
    offsets: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]
    keys: Shaped[np.ndarray, " n"]
    weights: Float32[np.ndarray, " n"]
    ratios: Float32[np.ndarray, " n"]
    stills: Bool[np.ndarray, " n"]
    faults: tuple[Fault, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    media: Media = IMAGE

    def __post_init__(self) -> None:
        """Close the files opened so far, which may have been replaced since."""
        _open.cache_clear()

    def __len__(self) -> int:
        """Count the images."""
        return len(self.offsets)

    @cached_property
    def digest(self) -> str:
        """A hash of the images and their order, but not of the location of files."""
        digest = blake2b(digest_size=16)
        stills = [self.stills] if self.stills.any() else []
        for part in (self.keys, self.sizes, self.weights, *stills):
            digest.update(np.ascontiguousarray(part).view(np.uint8).data)
        return digest.hexdigest()

    @property
    def clips(self) -> "SampleIndex":
        """The samples without images among clips."""
        return self.select(np.flatnonzero(~self.stills)) if self.stills.any() else self

    def key(self, image_id: int) -> str:
        """Name an image."""
        return os.fsdecode(self.keys[image_id])

    def path(self, image_id: int) -> str:
        """Name the file that holds an image."""
        return self.paths[self.path_ids[image_id]]

    def fault(self, image_id: int, reason: str) -> Fault:
        """Describe what is wrong with an image."""
        return Fault(shard=shown(self.path(image_id)), key=self.key(image_id), reason=reason)

    def read(self, image_id: int, *, limit: int | None = None) -> bytes:
        """Read the encoded bytes of an image.

        Args:
            image_id: Position in this index, in [0, n).
            limit: The most bytes to read, from the first one on; None for all.

        Raises:
            BadSampleError: If the file is gone, cannot be read or has become shorter.
            DataError: If a server does not answer, after all retries.
        """
        path = self.path(image_id)
        offset, size = int(self.offsets[image_id]), int(self.sizes[image_id])
        size = size if limit is None else min(size, limit)
        if is_url(path):
            return reading.read(path, offset, size)
        try:
            if path.endswith(FOLDER_END):
                encoded, length = read_frames(path)
            else:
                encoded = _open(path).read(offset, size)
                length = len(encoded)
        except OSError as error:
            raise BadSampleError(f"cannot read the file: {error.strerror}") from error
        if length != size:
            raise BadSampleError(
                f"the file ends inside this {self.media.noun}: it has changed since it was indexed"
            )
        return encoded

    def read_ahead(self, image_ids: Int64[np.ndarray, " m"]) -> None:
        """Start reading images that are needed soon, in few, long reads.

        Returns at once. If it would be of no use, it does nothing.

        Args:
            image_ids: Positions in this index, of images that are near each other.
        """
        for path_id in np.unique(self.path_ids[image_ids]).tolist():
            ids = image_ids[self.path_ids[image_ids] == path_id]
            first = int(self.offsets[ids].min())
            end = int((self.offsets[ids] + self.sizes[ids]).max())
            if is_url(self.paths[path_id]):
                reading.read_ahead(self.paths[path_id], first, end - first)
                continue
            with suppress(OSError):  # reported when the image is read
                _open(self.paths[path_id]).read_ahead(first, end)

    def select(self, image_ids: Int64[np.ndarray, " m"]) -> "SampleIndex":
        """Keep some of the images, in the order given."""
        arrays = {name: getattr(self, name)[image_ids] for name in ("path_ids", *_PLAIN)}
        return replace(self, **arrays)

    def part(self, image_ids: Int64[np.ndarray, " m"]) -> "SampleIndex":
        """Keep some of the images and only their files, so that little is sent to a worker."""
        chosen = self.select(image_ids)
        used, path_ids = np.unique(chosen.path_ids, return_inverse=True)
        return replace(
            chosen,
            paths=tuple(chosen.paths[i] for i in used.tolist()),
            path_ids=path_ids.astype(np.int32),
            faults=(),
            others={},
        )

    @staticmethod
    def concatenate(indexes: Sequence["SampleIndex"]) -> "SampleIndex":
        """Concatenate indexes of one media; without any, return an empty one."""
        media = indexes[0].media if indexes else IMAGE
        indexes = [make_index(), *indexes]
        first_ids = np.cumsum([0, *(len(index.paths) for index in indexes)]).astype(np.int32)
        path_ids = [
            index.path_ids + first for index, first in zip(indexes, first_ids, strict=False)
        ]
        return SampleIndex(
            paths=tuple(path for index in indexes for path in index.paths),
            path_ids=np.concatenate(path_ids),
            faults=tuple(fault for index in indexes for fault in index.faults),
            others=sum((Counter(index.others) for index in indexes), Counter[str]()),
            media=media,
            **{name: np.concatenate([getattr(i, name) for i in indexes]) for name in _PLAIN},
        )


def make_index(
    *,
    paths: Sequence[str] = (),
    path_ids: Sequence[int] = (),
    offsets: Sequence[int] = (),
    sizes: Sequence[int] = (),
    keys: Sequence[bytes] = (),
    ratios: Sequence[float] | None = None,
    faults: Iterable[Fault] = (),
    others: Mapping[str, int] | None = None,
) -> SampleIndex:
    """Make an index of lists; each image is seen once in an epoch."""
    return SampleIndex(
        paths=tuple(paths),
        path_ids=np.array(path_ids, dtype=np.int32),
        offsets=np.array(offsets, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        keys=np.array(keys, dtype=np.bytes_),
        weights=np.ones(len(keys), dtype=np.float32),
        ratios=np.array([math.nan] * len(keys) if ratios is None else ratios, dtype=np.float32),
        stills=np.zeros(len(keys), dtype=bool),
        faults=tuple(faults),
        others=dict(others or {}),
    )


def hold_out(index: SampleIndex, *, key: str = "data.val") -> tuple[SampleIndex, SampleIndex]:
    """Split off images for validation: the 2 % with the smallest hash of their key.

    At least 16 and at most 5,000, but never more than half. The choice depends only on the names:
    neither the order of the index nor later additions reshuffle it.

    Args:
        index: All images.
        key: The config key that can name other images, for messages.

    Returns:
        The images to train on and the images held out, both in the order of the index.

    Raises:
        DataError: If there are fewer than 2 images.
    """
    n = len(index)
    if n < 2:
        noun = f"{index.media.noun}s"
        raise DataError(f"cannot hold out {noun} of {n}: set {key} to {noun} for validation")
    count = min(max(round(HELD_OUT_FRACTION * n), MIN_HELD_OUT), MAX_HELD_OUT, n // 2)
    keys = index.keys.tolist()
    digests = b"".join(blake2b(key, digest_size=8).digest() for key in keys)
    hashes = np.frombuffer(digests, dtype=">u8")
    # Shards often reuse keys: equal keys are distinguished by file and offset, not by their order.
    paths = index.paths
    if len(set(keys)) < n:  # else a path decides nothing
        # However a folder is spelled, and through whichever link it is reached.
        paths = tuple(path if is_url(path) else os.path.realpath(path) for path in paths)
    path_ranks = np.argsort(np.argsort(np.array(paths)))[index.path_ids]
    is_held_out = np.zeros(n, dtype=bool)
    is_held_out[np.lexsort((index.offsets, path_ranks, hashes))[:count]] = True
    return index.select(np.flatnonzero(~is_held_out)), index.select(np.flatnonzero(is_held_out))


class _OpenFile:
    """A file that is read by position, so forks, threads and other readers do not interfere."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def read_ahead(self, first: int, end: int) -> None:
        if hasattr(os, "posix_fadvise"):
            for offset in range(first, end, READ_AHEAD_BYTES):
                length = min(READ_AHEAD_BYTES, end - offset)
                os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def __del__(self) -> None:
        # Closed by its last user, not by the cache, so that removing it is always safe.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


@lru_cache(maxsize=MAX_OPEN_FILES)
def _open(path: str) -> _OpenFile:
    return _OpenFile(path)
