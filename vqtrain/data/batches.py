"""Whole batches by their number.

A data set here is a function from a batch's number to the batch, so that the order of batches is
the same with any number of workers, and a run can continue at any position.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import final

import numpy as np
import torch
from torch.utils.data import Dataset

from vqtrain.data.images import load_pixels
from vqtrain.data.index import ImageIndex
from vqtrain.data.order import EndlessOrder, sample_generator
from vqtrain.shapes import Mask, Pixels


@final
@dataclass(kw_only=True, eq=False)  # not frozen: Lightning's float64 refuses frozen dataclasses
class Batch:
    """Images of one step or one piece of the validation.

    Attributes:
        images: Pixels in 0..255, not yet scaled: a quarter of the bytes to move.
        mask: False where an image only fills up the batch and must not be counted.
        keys: Names of the images.
    """

    images: Pixels
    mask: Mask
    keys: list[str]

    def pin_memory(self) -> "Batch":
        """Copy to memory from which a GPU can fetch by itself; called by the loader."""
        return replace(self, images=self.images.pin_memory(), mask=self.mask.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Copy to a device, with the arguments of ``Tensor.to``."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            mask=self.mask.to(device, non_blocking=non_blocking),
        )


@final
class TrainingBatches(Dataset[Batch]):
    """An endless row of shuffled batches; number m is the m-th of this process from ``start``.

    Position p of the endless order is sample i of batch m on this rank, where
    p = start + (m * world_size + rank) * batch_size + i.

    Args:
        index: Images to train on.
        seed: Seed of the run.
        batch_size: Images per batch and process.
        rank: Number of this process.
        world_size: Number of processes.
        image_size: Side of the square crop, in px.
        channels: 3 for color, 1 for gray.
        crop: A key of ``CROPS``.
        flip: Whether to mirror half of the images.
        start: Samples that the run has seen so far, over all ranks.
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        seed: int,
        batch_size: int,
        rank: int,
        world_size: int,
        image_size: int,
        channels: int,
        crop: str,
        flip: bool,
        start: int,
    ) -> None:
        self._index = index
        self._load = partial(
            load_pixels, index, image_size=image_size, channels=channels, crop=crop, flip=flip
        )
        self._seed = seed
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._start = start
        self._order = EndlessOrder(n=len(index), seed=seed)

    def __getitem__(self, number: int) -> Batch:
        """Load a batch.

        Raises:
            DataError: If an image cannot be read or decoded.
        """
        position = self._start + (number * self._world_size + self._rank) * self._batch_size
        epochs, image_ids = self._order.samples(position, self._batch_size)
        images = [
            self._load(
                image_id,
                generator=sample_generator(seed=self._seed, epoch=epoch, image_id=image_id),
            )
            for epoch, image_id in zip(epochs.tolist(), image_ids.tolist(), strict=True)
        ]
        return Batch(
            images=torch.from_numpy(np.stack(images)),
            mask=torch.ones(self._batch_size, dtype=torch.bool),
            keys=[self._index.key(image_id) for image_id in image_ids.tolist()],
        )


@final
class ValidationBatches(Dataset[Batch]):
    """Every image once over all ranks, in the order of the index.

    All ranks have the same number of full batches, or they would wait for each other for ever: what
    is missing at the end is filled with the last image, masked.

    Args:
        index: Images to validate on.
        batch_size: Images per batch and process.
        rank: Number of this process.
        world_size: Number of processes.
        image_size: Side of the square crop, in px.
        channels: 3 for color, 1 for gray.
        crop: A key of ``CROPS``.
    """

    def __init__(
        self,
        index: ImageIndex,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        image_size: int,
        channels: int,
        crop: str,
    ) -> None:
        self._index = index
        self._load = partial(
            load_pixels,
            index,
            image_size=image_size,
            channels=channels,
            crop=crop,
            flip=False,
            generator=None,
        )
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        """Count the batches of one rank."""
        return math.ceil(len(self._index) / (self._batch_size * self._world_size))

    def __getitem__(self, number: int) -> Batch:
        """Load a batch.

        Raises:
            DataError: If an image cannot be read or decoded.
        """
        first = (number * self._world_size + self._rank) * self._batch_size
        positions = np.arange(first, first + self._batch_size)
        image_ids = np.minimum(positions, len(self._index) - 1).tolist()
        images = {image_id: self._load(image_id) for image_id in dict.fromkeys(image_ids)}
        return Batch(
            images=torch.from_numpy(np.stack([images[image_id] for image_id in image_ids])),
            mask=torch.from_numpy(positions < len(self._index)),
            keys=[self._index.key(image_id) for image_id in image_ids],
        )
