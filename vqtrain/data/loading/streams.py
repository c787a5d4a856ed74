"""Training images from sources that cannot seek: commands that write tars, read in sequence.

The shard sequence is endless: a permutation of the commands for each epoch. R readers, the workers
of all processes, read it; reader r takes the shards at r, r + R, r + 2R and so on. No reader waits
for another, and the cursor of each is five numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from itertools import count
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vqtrain.data.decoding.base import Transform
from vqtrain.data.faults import Fault
from vqtrain.data.loading.batches import MAX_BAD_IN_A_ROW, Batch, all_bad, stack
from vqtrain.data.loading.commands import Shard
from vqtrain.data.settings.base import DataSettings
from vqtrain.data.sources.pipes import Stream
from vqtrain.errors import BadSampleError, DataError

# Limits of a shuffle buffer, in encoded samples and in bytes.
BUFFER_SAMPLES = 1_024
BUFFER_BYTES = 256 * 2**20

# Keeps the streams of random numbers apart, also from those of vqtrain.data.loading.order.
_SHARDS = 11
_BUFFER = 12
_SAMPLE = 13


class Cursor(NamedTuple):
    """Where a reader is.

    A reader that continues reads its current shuffle buffer again.

    Attributes:
        position: Of the shard with which the current buffer began, in the shard sequence.
        used: Samples of that shard that went into earlier buffers.
        buffer: Buffers before this one.
        taken: Samples taken from this one.
        total: Samples taken in all.
    """

    position: int
    used: int
    buffer: int
    taken: int
    total: int

    @classmethod
    def first(cls, reader: int) -> "Cursor":
        """Return where a reader begins."""
        return cls(position=reader, used=0, buffer=0, taken=0, total=0)


@final
@dataclass(eq=False)
class StreamBatches(Dataset[Batch]):
    """Endless batches; number m comes from reader m modulo the number of readers.

    The batches of a reader must be loaded in order, from the first one on.

    Attributes:
        stream: Where images come from.
        settings: The ``data`` group; ``resampled`` draws shards with replacement.
        seed: Seed of the run.
        readers: Readers of all processes together.
        cursors: Those of this process.
    """

    stream: Stream
    _: KW_ONLY
    settings: DataSettings
    seed: int
    readers: int
    cursors: Sequence[Cursor]

    def __post_init__(self) -> None:
        """Begin with no reader at work."""
        self._transform = self.settings.transform
        self._at_work: dict[int, _Reader] = {}

    def __getitem__(self, number: int) -> Batch:
        """Load a batch.

        Raises:
            DataError: If the commands write no image, or none that can be decoded.
        """
        which = number % len(self.cursors)
        if number == which:
            cursor = self.cursors[which]
            samples = _read_shards(
                self.stream,
                cursor,
                seed=self.seed,
                sampling=self.settings.sampling,
                readers=self.readers,
            )
            seed = (self.seed, cursor.position % self.readers)
            self._at_work[which] = _Reader(samples, cursor, seed=seed)
        return self._at_work[which].batch(self.settings.batch_size, self._transform)


class _Sample(NamedTuple):
    """An encoded image, and where in the shard sequence it is."""

    epoch: int
    position: int
    number: int
    command: str
    key: str
    encoded: bytes


@final
class _Reader:
    """Shuffles samples buffer by buffer.

    The next buffer is filled while the current one is emptied, so that reading is as steady as
    training is, and no more than about one buffer is held.
    """

    def __init__(
        self, source: Iterator[_Sample | Fault], cursor: Cursor, *, seed: tuple[int, int]
    ) -> None:
        self._source, self._seed = source, seed
        self._faults: list[Fault] = []
        self._current: list[_Sample] = []
        self._following: list[_Sample] = []
        self._following_bytes = 0
        self._next = self._read()
        self._cursor = cursor
        self._begin_buffer(cursor.buffer)
        for _ in range(cursor.taken):
            self._take()
        self._cursor = self._cursor._replace(total=cursor.total)

    def batch(self, size: int, transform: Transform) -> Batch:
        """Make the next batch; samples that cannot be decoded are skipped."""
        images, keys, bad_in_a_row = list[Tensor](), list[str](), 0
        while len(images) < size:
            seed = [*self._seed, _SAMPLE, self._cursor.total]
            generator = np.random.Generator(np.random.PCG64(seed))
            sample = self._take()
            try:
                images.append(transform.decode(sample.encoded, generator))
                keys.append(sample.key)
                bad_in_a_row = 0
            except BadSampleError as error:
                fault = Fault(shard=f"pipe:{sample.command}", key=sample.key, reason=str(error))
                self._faults.append(fault)
                bad_in_a_row += 1
                if bad_in_a_row == MAX_BAD_IN_A_ROW:
                    raise all_bad(fault, transform.media) from error
        faults, self._faults = self._faults, []
        mask = torch.ones(size, dtype=torch.bool)
        return Batch(
            samples=stack(images), mask=mask, keys=keys, faults=faults, cursor=self._cursor
        )

    def _take(self) -> _Sample:
        if not self._current:
            self._begin_buffer(self._cursor.buffer + 1)
        self._fill()
        taken, total = self._cursor.taken + 1, self._cursor.total + 1
        self._cursor = self._cursor._replace(taken=taken, total=total)
        return self._current.pop()

    def _begin_buffer(self, number: int) -> None:
        while self._fill():
            pass
        samples, first = self._following, self._following[0]
        order = np.random.Generator(np.random.PCG64([*self._seed, _BUFFER, number]))
        self._current = [samples[i] for i in order.permutation(len(samples)).tolist()]
        self._following, self._following_bytes = [], 0
        self._cursor = Cursor(
            position=first.position,
            used=first.number,
            buffer=number,
            taken=0,
            total=self._cursor.total,
        )

    def _fill(self) -> bool:
        """Add a sample to the following buffer, if it is not full; a buffer is of one epoch."""
        if self._following and (
            len(self._following) >= BUFFER_SAMPLES
            or self._following_bytes >= BUFFER_BYTES
            or self._next.epoch != self._following[0].epoch
        ):
            return False
        self._following.append(self._next)
        self._following_bytes += len(self._next.encoded)
        self._next = self._read()
        return True

    def _read(self) -> _Sample:
        for item in self._source:
            if isinstance(item, _Sample):
                return item
            self._faults.append(item)
        raise AssertionError("the shard sequence has no end")


def _read_shards(
    stream: Stream, cursor: Cursor, *, seed: int, sampling: str, readers: int
) -> Iterator[_Sample | Fault]:
    """Read the shards of one reader from a cursor on, without an end.

    Raises:
        DataError: If no shard gives an image.
    """
    commands, media = stream.commands, stream.media
    used = cursor.used
    empty, empty_in_a_row = set[str](), 0
    for position in count(cursor.position, readers):
        epoch, number = divmod(position, len(commands))
        command = commands[_shard_order(len(commands), seed, epoch, sampling)[number]]
        shard, index = Shard(command, media), -1
        for index, (key, encoded) in enumerate(shard.samples()):
            if index >= used:
                yield _Sample(epoch, position, index, command, key, encoded)
        used = 0
        reason = shard.reason or ("" if index >= 0 else f"the tar holds no {media.noun}")
        if reason:
            yield Fault(shard=f"pipe:{command}", key="", reason=reason)
        if index >= 0:
            empty, empty_in_a_row = set(), 0
            continue
        empty.add(command)
        empty_in_a_row += 1
        if len(empty) == len(set(commands)) or empty_in_a_row == MAX_BAD_IN_A_ROW:
            others = ""
            if empty_in_a_row > 1:
                others = f", nor do the {empty_in_a_row - 1} shards before it"
            raise DataError(f"pipe:{command} gives no {media.noun} ({reason}){others}")


@lru_cache(maxsize=1)
def _shard_order(n: int, seed: int, epoch: int, sampling: str) -> list[int]:
    generator = np.random.Generator(np.random.PCG64([seed, epoch, _SHARDS]))
    order = generator.integers(n, size=n) if sampling == "resampled" else generator.permutation(n)
    return list(map(int, order))
