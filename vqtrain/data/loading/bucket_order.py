"""Batches of one bucket each, in the order of the images: arithmetic with no state.

The images of a bucket, in the order in which the endless order brings them, are cut into batches;
the batches of all buckets follow each other in the order in which they become full. The last images
of a bucket in an epoch thus share a batch with its first ones of the next epoch: every image comes
once an epoch, and every batch is full. Neither the ranks nor the workers have a part in it.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int64, UInt8

from vqtrain.data.loading.order import EndlessOrder

# Windows of the order that are kept: a batch of a rare size needs several.
MAX_WINDOWS = 4


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class BucketBatch:
    """A batch.

    Attributes:
        bucket: The bucket of its images.
        epochs: The epoch of each sample.
        positions: The position of each sample in its epoch.
        ids: The image of each sample.
    """

    bucket: int
    epochs: Int64[np.ndarray, " b"]
    positions: Int64[np.ndarray, " b"]
    ids: Int64[np.ndarray, " b"]


@final
class BucketOrder:
    """An endless sequence of batches of one bucket each.

    Args:
        order: The order of the images; every epoch has as many samples of each bucket.
        labels: The bucket of each image.
        batch_size: Samples in a batch.
    """

    def __init__(
        self, order: EndlessOrder, labels: UInt8[np.ndarray, " n"], *, batch_size: int
    ) -> None:
        self._order, self._labels, self._batch_size = order, labels, batch_size
        self._num_buckets = int(labels.max()) + 1
        self._before: dict[int, Int64[np.ndarray, "windows_and_end k"]] = {}
        self._windows: dict[tuple[int, int], _Window] = {}
        self._counts = self._counts_before(0)[-1]

    def batch(self, number: int) -> BucketBatch:
        """Look up the batch that is the n-th to become full."""
        epoch = number * self._batch_size // self._order.epoch_size
        while self._full_after(epoch + 1) <= number:
            epoch += 1
        seen = epoch * self._counts + self._counts_before(epoch)
        full = (seen // self._batch_size).sum(axis=1)
        window = int(np.searchsorted(full, number, side="right")) - 1
        bucket, last = self._last_samples(epoch, window, seen[window])[number - int(full[window])]
        return self._samples(bucket, last + 1 - self._batch_size)

    def _full_after(self, epochs: int) -> int:
        """Count the batches that are full after so many epochs."""
        return int((epochs * self._counts // self._batch_size).sum())

    def _last_samples(
        self, epoch: int, window: int, seen: Int64[np.ndarray, " k"]
    ) -> list[tuple[int, int]]:
        """List the batches that become full in a window: bucket, and number of the last sample.

        Args:
            epoch: The epoch.
            window: Number of the window in it.
            seen: Samples of each bucket before the window, since the beginning of the run.
        """
        found: list[tuple[int, int, int]] = []
        for bucket, places in enumerate(self._window(epoch, window).places):
            before = int(seen[bucket])
            first = (self._batch_size - 1 - before) % self._batch_size
            full = range(first, len(places), self._batch_size)
            found += [(int(places[i]), bucket, before + i) for i in full]
        return [(bucket, last) for _, bucket, last in sorted(found)]

    def _samples(self, bucket: int, first: int) -> BucketBatch:
        """Look up a batch by the number of its first sample among all of its bucket."""
        epochs, positions, ids, number = [], [], [], first
        while number < first + self._batch_size:
            epoch, within = divmod(number, int(self._counts[bucket]))
            before = self._counts_before(epoch)[:, bucket]
            window = int(np.searchsorted(before, within, side="right")) - 1
            skipped = within - int(before[window])
            found = self._window(epoch, window)
            places = found.places[bucket][skipped : skipped + first + self._batch_size - number]
            epochs.append(np.full(len(places), epoch))
            positions.append(found.first + places)
            ids.append(found.ids[places])
            number += len(places)
        return BucketBatch(
            bucket=bucket,
            epochs=np.concatenate(epochs),
            positions=np.concatenate(positions),
            ids=np.concatenate(ids),
        )

    def _counts_before(self, epoch: int) -> Int64[np.ndarray, "windows_and_end k"]:
        """Count the samples of each bucket in an epoch before each of its windows, and in all."""
        if epoch not in self._before:
            if len(self._before) == 3:
                del self._before[min(self._before)]
            starts = self._order.window_starts(epoch)
            counts = [
                np.bincount(self._labels[self._ids(epoch, start, end)], minlength=self._num_buckets)
                for start, end in zip(starts, [*starts[1:], self._order.epoch_size], strict=True)
            ]
            self._before[epoch] = np.cumsum([np.zeros_like(counts[0]), *counts], axis=0)
        return self._before[epoch]

    def _window(self, epoch: int, number: int) -> "_Window":
        key = (epoch, number)
        window = self._windows.pop(key, None)
        if window is None:
            starts = [*self._order.window_starts(epoch), self._order.epoch_size]
            ids = self._ids(epoch, starts[number], starts[number + 1])
            labels = self._labels[ids]
            places = [np.flatnonzero(labels == bucket) for bucket in range(self._num_buckets)]
            window = _Window(first=starts[number], ids=ids, places=places)
            if len(self._windows) == MAX_WINDOWS:
                del self._windows[next(iter(self._windows))]
        self._windows[key] = window  # the last one used is the last one dropped
        return window

    def _ids(self, epoch: int, start: int, end: int) -> Int64[np.ndarray, " m"]:
        return self._order.samples(epoch * self._order.epoch_size + start, end - start)[2]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class _Window:
    """A window of the order.

    Attributes:
        first: Position of its first sample in the epoch.
        ids: Image of each sample.
        places: Where in it the samples of each bucket are.
    """

    first: int
    ids: Int64[np.ndarray, " m"]
    places: list[Int64[np.ndarray, " _"]]
