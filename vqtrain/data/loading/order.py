"""The order of images: arithmetic on seed, epoch and position, with no state."""

from collections.abc import Iterator
from typing import final

import numpy as np
from jaxtyping import Float32, Int64, UInt8

# One read from a disk, or one request to an object store: large enough that a seek costs little in
# comparison, on a spinning disk (10 ms) and in a bucket (50 ms).
BLOCK_BYTES = 4 * 2**20
# Otherwise a block of tiny images could hold a whole class.
MAX_BLOCK_SIZE = 4_096
# Blocks shuffled together: 1 GiB of images from 256 parts of the data, so that a batch holds many
# classes even if the data are sorted by class.
WINDOW = 256

# Keeps the streams of random numbers for the order, the crops and the weights apart.
_ORDER = 1
_SAMPLE = 2
_SUBSET = 3
_WINDOW = 4


def sample_generator(*, seed: int, epoch: int, position: int) -> np.random.Generator:
    """Make the random numbers for the sample at a position of an epoch, in any process."""
    return np.random.Generator(np.random.PCG64([seed, epoch, _SAMPLE, position]))


def block_size_for(sizes: Int64[np.ndarray, " n"]) -> int:
    """Choose how many neighboring samples make a block, by their mean size in bytes."""
    mean = max(1.0, float(sizes.mean()))
    return int(min(max(BLOCK_BYTES / mean, 1), MAX_BLOCK_SIZE))


@final
class EpochOrder:
    """The order of one epoch: a shuffle that keeps reads close together on the disk.

    Consecutive samples form blocks; the blocks are permuted, then the samples are shuffled within
    windows of consecutive permuted blocks. A window is computed when it is needed, so that
    hundreds of millions of samples take little memory.

    Args:
        n: Number of samples, at least 1.
        seed: Seed of the run.
        epoch: Passes over the data before this one.
        block_size: Samples in a block; the last one may be smaller.
        window: Blocks in a window; the last one may be smaller.
        resampled: Whether blocks are drawn with replacement, and begin at any sample.

    Attributes:
        starts: The first sample of each block, in the order in which blocks are read.
    """

    def __init__(
        self, n: int, *, seed: int, epoch: int, block_size: int, window: int, resampled: bool
    ) -> None:
        self._n, self._block_size, self._window = n, block_size, window
        self._seed, self._resampled = (seed, epoch), resampled
        generator = np.random.Generator(np.random.PCG64([seed, epoch, _ORDER]))
        num_blocks = -(-n // block_size)
        if resampled:
            self.starts = generator.integers(n, size=num_blocks)
        else:
            self.starts = generator.permutation(num_blocks) * block_size
        lengths = np.full(num_blocks, block_size)
        if not resampled:
            lengths = np.minimum(lengths, n - self.starts)
        self._firsts = np.concatenate([[0], np.cumsum(lengths)])[:-1:window]
        self._windows: dict[int, Int64[np.ndarray, " m"]] = {}

    def samples(self, positions: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        """Look up what comes at some positions in [0, n).

        All positions together give every sample exactly once; with ``resampled`` all samples are
        equally likely.
        """
        found = np.empty_like(positions)
        windows = np.searchsorted(self._firsts, positions, side="right") - 1
        for number in np.unique(windows).tolist():
            is_here = windows == number
            found[is_here] = self._shuffled(number)[positions[is_here] - self._firsts[number]]
        return found

    def window_start(self, position: int) -> int:
        """Return the first position of the window that holds a position."""
        return int(self._firsts[np.searchsorted(self._firsts, position, side="right") - 1])

    @property
    def window_starts(self) -> list[int]:
        """The first position of each window."""
        starts: list[int] = self._firsts.tolist()
        return starts

    def block(self, number: int) -> Int64[np.ndarray, " m"]:
        """List the samples of the n-th block that is read."""
        samples = self.starts[number] + np.arange(self._block_size)
        # The last block ends with the last sample; a drawn one continues at the first sample.
        return samples % self._n if self._resampled else samples[samples < self._n]

    def _shuffled(self, number: int) -> Int64[np.ndarray, " m"]:
        if number not in self._windows:
            # A batch needs one window, or two where they meet.
            if len(self._windows) == 2:
                del self._windows[min(self._windows)]
            first = number * self._window
            last = min(first + self._window, len(self.starts))
            samples = np.concatenate([self.block(block) for block in range(first, last)])
            seed = [*self._seed, _WINDOW, number]
            np.random.Generator(np.random.PCG64(seed)).shuffle(samples)
            self._windows[number] = samples
        return self._windows[number]


@final
class Repetitions:
    """How often each image is seen in an epoch: w times, where w need not be a whole number.

    Args:
        weights: The w of each image, above 0. Of images with the same w, a share equal to its
            fractional part is seen once more; the epochs take turns through all of them.
        seed: Seed of the run.
        labels: A number of each image: every epoch has as many samples with each number.
    """

    def __init__(
        self,
        weights: Float32[np.ndarray, " n"],
        *,
        seed: int,
        labels: UInt8[np.ndarray, " n"] | None = None,
    ) -> None:
        self._seed = seed
        self._groups = [
            (float(weight), np.flatnonzero(weights == weight)) for weight in np.unique(weights)
        ]
        self._labels = np.zeros(len(weights), np.uint8) if labels is None else labels
        counts = [
            count
            for weight, ids in self._groups
            for count in [
                *[len(ids)] * int(weight),
                sum(_extra(weight, len(part)) for part in self._parts(ids)),
            ]
        ]
        self._firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._extras: dict[tuple[int, int], Int64[np.ndarray, " m"]] = {}

    def __len__(self) -> int:
        """Count the samples of an epoch."""
        return int(self._firsts[-1])

    def images(self, epoch: int, samples: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
        """Look up the images of some samples; those of one pass are in the order of their ids."""
        found = np.empty_like(samples)
        passes = np.searchsorted(self._firsts, samples, side="right") - 1
        number = 0
        for group, (weight, ids) in enumerate(self._groups):
            for is_extra in [*[False] * int(weight), True]:
                is_here = passes == number
                if is_here.any():
                    seen = self._extra_images(epoch, group) if is_extra else ids
                    found[is_here] = seen[samples[is_here] - self._firsts[number]]
                number += 1
        return found

    def _extra_images(self, epoch: int, group: int) -> Int64[np.ndarray, " m"]:
        if (epoch, group) not in self._extras:
            # Those of this epoch and of the next one, which may be read ahead.
            self._extras = {k: v for k, v in self._extras.items() if abs(k[0] - epoch) <= 1}
            weight, ids = self._groups[group]
            generator = np.random.Generator(np.random.PCG64([self._seed, _SUBSET, group]))
            extras = []
            for part in self._parts(ids):
                count = _extra(weight, len(part))
                turns = (epoch * count + np.arange(count)) % len(part)
                extras.append(part[generator.permutation(len(part))[turns]])
            self._extras[epoch, group] = np.sort(np.concatenate(extras))
        return self._extras[epoch, group]

    def _parts(self, ids: Int64[np.ndarray, " m"]) -> list[Int64[np.ndarray, " _"]]:
        """Split images by their labels."""
        labels = self._labels[ids]
        return [ids[labels == label] for label in np.unique(labels)]


def _extra(weight: float, count: int) -> int:
    fraction = weight % 1
    return max(1, round(fraction * count)) if fraction else 0


@final
class EndlessOrder:
    """An endless sequence of epochs, without a gap between them.

    Args:
        sizes: Bytes of each image; there is at least one.
        weights: How often each image is seen in an epoch.
        seed: Seed of the run.
        sampling: ``permuted``, or ``resampled`` to draw with replacement.
        labels: As in ``Repetitions``.
    """

    def __init__(
        self,
        *,
        sizes: Int64[np.ndarray, " n"],
        weights: Float32[np.ndarray, " n"],
        seed: int,
        sampling: str,
        labels: UInt8[np.ndarray, " n"] | None = None,
    ) -> None:
        self._repetitions = Repetitions(weights, seed=seed, labels=labels)
        self._block_size = block_size_for(sizes)
        self._seed, self._sampling = seed, sampling
        self._epochs: dict[int, EpochOrder] = {}
        self.epoch_size = len(self._repetitions)
        # How far ahead a block must be requested to be there when its window begins.
        self.lead = min(WINDOW * self._block_size, self.epoch_size)

    def samples(
        self, start: int, count: int
    ) -> tuple[
        Int64[np.ndarray, " count"], Int64[np.ndarray, " count"], Int64[np.ndarray, " count"]
    ]:
        """Look up consecutive positions.

        Args:
            start: First position, in samples since the beginning of the run.
            count: How many.

        Returns:
            The epoch, the position in it and the image at each position.
        """
        positions = np.arange(start, start + count, dtype=np.int64)
        epochs, within = np.divmod(positions, self.epoch_size)
        ids = np.empty_like(within)
        for epoch in np.unique(epochs).tolist():
            is_here = epochs == epoch
            samples = self._epoch(epoch).samples(within[is_here])
            ids[is_here] = self._repetitions.images(epoch, samples)
        return epochs, within, ids

    def window_start(self, position: int) -> int:
        """Return the first position of the window that holds a position."""
        epoch, within = divmod(position, self.epoch_size)
        return epoch * self.epoch_size + self._epoch(epoch).window_start(within)

    def window_starts(self, epoch: int) -> list[int]:
        """Return the position of the first sample of each window of an epoch."""
        return self._epoch(epoch).window_starts

    def blocks(
        self, start: int, end: int, *, part: int, parts: int
    ) -> Iterator[Int64[np.ndarray, " m"]]:
        """Iterate over the blocks that would begin between two positions without shuffling.

        Args:
            start: First of the positions.
            end: One after the last of them.
            part: Which part of them, in [0, parts).
            parts: Processes that share this work.

        Yields:
            The images of each block.
        """
        for epoch in range(start // self.epoch_size, -(-end // self.epoch_size)):
            order, first = self._epoch(epoch), epoch * self.epoch_size
            begin, stop = (-(-max(0, p - first) // self._block_size) for p in (start, end))
            for number in range(begin, min(stop, len(order.starts))):
                if number % parts == part:
                    yield self._repetitions.images(epoch, order.block(number))

    def _epoch(self, epoch: int) -> EpochOrder:
        if epoch not in self._epochs:
            # Positions only grow: one epoch is read, and the next one may be read ahead.
            if len(self._epochs) == 3:
                del self._epochs[min(self._epochs)]
            self._epochs[epoch] = EpochOrder(
                self.epoch_size,
                seed=self._seed,
                epoch=epoch,
                block_size=self._block_size,
                window=WINDOW,
                resampled=self._sampling == "resampled",
            )
        return self._epochs[epoch]
