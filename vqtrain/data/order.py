"""The order in which images are seen: arithmetic on seed, epoch and position, with no state."""

from typing import final

import numpy as np
from jaxtyping import Int64

# Records next to each other on the disk that stay near each other in time: about 3 MB of JPEGs,
# one read-ahead of a disk and, later, one request to a store of objects.
BLOCK_SIZE = 32
# Blocks shuffled together. 512 x 32 = 16,384 images mix, from 512 places, so that a batch of a data
# set sorted by class holds many classes.
WINDOW = 512

# Keeps the streams of numbers for the order and for the crops apart.
_ORDER = 1
_SAMPLE = 2


def sample_generator(*, seed: int, epoch: int, image_id: int) -> np.random.Generator:
    """Make the random numbers for one image in one epoch, whoever asks and whenever."""
    return np.random.Generator(np.random.PCG64([seed, epoch, _SAMPLE, image_id]))


def epoch_order(
    n: int, *, seed: int, epoch: int, block_size: int, window: int
) -> Int64[np.ndarray, " n"]:
    """Shuffle records so that reads stay close together on the disk.

    Consecutive records form blocks; the blocks are permuted, then the records are shuffled within
    windows of consecutive permuted blocks.

    Args:
        n: Number of records.
        seed: Seed of the run.
        epoch: Passes over the data before this one.
        block_size: Records in a block; the last one may be smaller.
        window: Blocks in a window; the last one may be smaller.

    Returns:
        Every id in [0, n) exactly once.
    """
    generator = np.random.Generator(np.random.PCG64([seed, epoch, _ORDER]))
    num_blocks = -(-n // block_size)
    blocks = np.arange(num_blocks * block_size, dtype=np.int64).reshape(num_blocks, block_size)
    order = blocks[generator.permutation(num_blocks)].reshape(-1)
    for start in range(0, len(order), window * block_size):
        generator.shuffle(order[start : start + window * block_size])
    return order[order < n]  # the last block was filled up


@final
class EndlessOrder:
    """Epoch after epoch, without an end and without a gap between them.

    Args:
        n: Number of records, at least 1.
        seed: Seed of the run.
    """

    def __init__(self, *, n: int, seed: int) -> None:
        self._n = n
        self._seed = seed
        self._orders: dict[int, Int64[np.ndarray, " n"]] = {}

    def samples(
        self, start: int, count: int
    ) -> tuple[Int64[np.ndarray, " count"], Int64[np.ndarray, " count"]]:
        """Look up consecutive positions.

        Args:
            start: First position, in samples since the beginning of the run.
            count: How many.

        Returns:
            The epoch and the id at each position.
        """
        epochs, places = np.divmod(np.arange(start, start + count, dtype=np.int64), self._n)
        ids = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            is_here = epochs == epoch
            ids[is_here] = self._order(epoch)[places[is_here]]
        return epochs, ids

    def _order(self, epoch: int) -> Int64[np.ndarray, " n"]:
        if epoch not in self._orders:
            # Positions only grow, so a batch needs one epoch, or two where they meet.
            if len(self._orders) == 2:
                del self._orders[min(self._orders)]
            self._orders[epoch] = epoch_order(
                self._n, seed=self._seed, epoch=epoch, block_size=BLOCK_SIZE, window=WINDOW
            )
        return self._orders[epoch]
