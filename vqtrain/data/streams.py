"""Training images from sources that cannot seek: commands that write tars, read in sequence.

The shards form an endless row: epoch after epoch a permutation of the commands. It is read by R
readers, the workers of all processes; reader r takes the elements r, r + R, r + 2R and so on. None
waits for another, and each can say in five numbers where it stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from itertools import count
from typing import NamedTuple, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vqtrain.data.batches import MAX_BAD_IN_ROW, Batch, all_bad, stack
from vqtrain.data.commands import Shard
from vqtrain.data.faults import Fault
from vqtrain.data.images import Preparation, prepare
from vqtrain.errors import BadSampleError, DataError

# Encoded samples that are shuffled together: whichever of the two is reached first.
ROUND_SAMPLES = 1_024
ROUND_BYTES = 256 * 2**20

# Keeps the streams of numbers apart, also from those of vqtrain.data.order.
_ROW = 11
_ROUND = 12
_SAMPLE = 13


@final
@dataclass(frozen=True, kw_only=True)
class Stream:
    """Images that can only be read in sequence, and of which nobody knows how many there are.

    Attributes:
        commands: One for each shard, run by ``sh``: they are trusted like the configuration that
            they come from. Each writes an uncompressed tar to its standard output.
    """

    commands: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """A hash of what is seen in which order, as far as the commands tell."""
        return blake2b(
            "\0".join(self.commands).encode(errors="surrogateescape"), digest_size=16
        ).hexdigest()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is known to be unusable before anything is read."""
        return ()


class Place(NamedTuple):
    """Where a reader stands.

    Samples are shuffled in rounds; the reader goes on by reading the current round again.

    Attributes:
        element: Shard of the row with which the current round began.
        used: Samples of that shard that had gone into earlier rounds.
        number: Rounds before this one.
        taken: Samples of the round that have been taken.
        total: Samples that the reader has taken in all.
    """

    element: int
    used: int
    number: int
    taken: int
    total: int

    @classmethod
    def first(cls, reader: int) -> "Place":
        """Return where a reader begins."""
        return cls(element=reader, used=0, number=0, taken=0, total=0)


@final
class StreamBatches(Dataset[Batch]):
    """An endless row of batches; number m comes from reader m modulo their number.

    The batches of a reader must be asked for in order, and from the first one on.

    Args:
        stream: Where images come from.
        preparation: How they become arrays.
        seed: Seed of the run.
        sampling: ``permuted``, or ``resampled`` to draw shards with replacement.
        batch_size: Images per batch.
        readers: Readers of all processes together.
        places: Where those of this process stand.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        preparation: Preparation,
        seed: int,
        sampling: str,
        batch_size: int,
        readers: int,
        places: Sequence[Place],
    ) -> None:
        self._stream, self._preparation = stream, preparation
        self._seed, self._sampling = seed, sampling
        self._batch_size, self._num_readers = batch_size, readers
        self._places = places
        self._readers: dict[int, _Reader] = {}

    def __getitem__(self, number: int) -> Batch:
        """Load a batch.

        Raises:
            DataError: If the commands give no picture, or none that can be decoded.
        """
        which = number % len(self._places)
        if number == which:
            place = self._places[which]
            self._readers[which] = _Reader(
                _read_row(
                    self._stream.commands,
                    place,
                    seed=self._seed,
                    sampling=self._sampling,
                    readers=self._num_readers,
                ),
                place,
                seed=(self._seed, place.element % self._num_readers),
            )
        return self._readers[which].batch(self._batch_size, self._preparation)


class _Sample(NamedTuple):
    """An encoded picture, and which one of the row it is."""

    epoch: int
    element: int
    position: int
    command: str
    key: str
    encoded: bytes


@final
class _Reader:
    """Shuffles what it is given, round by round.

    The next round is filled while the current one is emptied, so that reading is as steady as
    training is, and no more than about one round is held.
    """

    def __init__(
        self, source: Iterator[_Sample | Fault], place: Place, *, seed: tuple[int, int]
    ) -> None:
        self._source, self._seed = source, seed
        self._faults: list[Fault] = []
        self._current: list[_Sample] = []
        self._following: list[_Sample] = []
        self._following_bytes = 0
        self._next = self._read()
        self._place = place
        self._begin_round(place.number)
        for _ in range(place.taken):
            self._take()
        self._place = self._place._replace(total=place.total)

    def batch(self, size: int, preparation: Preparation) -> Batch:
        """Make the next batch; what cannot be decoded is passed over."""
        images, keys, bad_in_row = list[Tensor](), list[str](), 0
        while len(images) < size:
            seed = [*self._seed, _SAMPLE, self._place.total]
            generator = np.random.Generator(np.random.PCG64(seed))
            sample = self._take()
            try:
                images.append(prepare(sample.encoded, preparation, generator))
                keys.append(sample.key)
                bad_in_row = 0
            except BadSampleError as error:
                fault = Fault(shard=f"pipe:{sample.command}", key=sample.key, reason=str(error))
                self._faults.append(fault)
                bad_in_row += 1
                if bad_in_row == MAX_BAD_IN_ROW:
                    raise all_bad(fault) from error
        faults, self._faults = self._faults, []
        return Batch(
            images=stack(images),
            mask=torch.ones(size, dtype=torch.bool),
            keys=keys,
            faults=faults,
            place=self._place,
        )

    def _take(self) -> _Sample:
        if not self._current:
            self._begin_round(self._place.number + 1)
        self._fill()
        taken, total = self._place.taken + 1, self._place.total + 1
        self._place = self._place._replace(taken=taken, total=total)
        return self._current.pop()

    def _begin_round(self, number: int) -> None:
        while self._fill():
            pass
        samples, first = self._following, self._following[0]
        order = np.random.Generator(np.random.PCG64([*self._seed, _ROUND, number]))
        self._current = [samples[i] for i in order.permutation(len(samples)).tolist()]
        self._following, self._following_bytes = [], 0
        self._place = Place(
            element=first.element,
            used=first.position,
            number=number,
            taken=0,
            total=self._place.total,
        )

    def _fill(self) -> bool:
        """Add a sample to the following round, if it is not full; a round is of one epoch."""
        if self._following and (
            len(self._following) >= ROUND_SAMPLES
            or self._following_bytes >= ROUND_BYTES
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
        raise AssertionError("the row of shards has no end")


def _read_row(
    commands: tuple[str, ...], place: Place, *, seed: int, sampling: str, readers: int
) -> Iterator[_Sample | Fault]:
    """Go through the elements of one reader, from a place on and without an end.

    Raises:
        DataError: If nothing can be read any more.
    """
    skipped = place.used
    empty, empty_in_row = set[str](), 0
    for element in count(place.element, readers):
        epoch, number = divmod(element, len(commands))
        command = commands[_epoch_order(len(commands), seed, epoch, sampling)[number]]
        shard, position = Shard(command), -1
        for position, (key, encoded) in enumerate(shard.samples()):
            if position >= skipped:
                yield _Sample(epoch, element, position, command, key, encoded)
        skipped = 0
        reason = shard.reason or ("" if position >= 0 else "the tar holds no picture")
        if reason:
            yield Fault(shard=f"pipe:{command}", key="", reason=reason)
        if position >= 0:
            empty, empty_in_row = set(), 0
            continue
        empty.add(command)
        empty_in_row += 1
        if len(empty) == len(set(commands)) or empty_in_row == MAX_BAD_IN_ROW:
            others = f", nor do the {empty_in_row - 1} shards before it" if empty_in_row > 1 else ""
            raise DataError(f"pipe:{command} gives no picture ({reason}){others}")


@lru_cache(maxsize=1)
def _epoch_order(n: int, seed: int, epoch: int, sampling: str) -> list[int]:
    generator = np.random.Generator(np.random.PCG64([seed, epoch, _ROW]))
    order = generator.integers(n, size=n) if sampling == "resampled" else generator.permutation(n)
    return list(map(int, order))
