"""Batches brought by worker processes, ahead of time and in order."""

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from multiprocessing.synchronize import Event
from types import FrameType
from typing import final

import torch
from torch.utils.data import DataLoader, Dataset

from vqtrain.data.batches import Batch, TrainingBatches, ValidationBatches
from vqtrain.data.index import ImageIndex
from vqtrain.data.settings import DataSettings
from vqtrain.errors import DataError

# Batches that each worker holds ready: rides out some slow pictures.
PREFETCH = 4


@final
class Loader(Iterable[Batch]):
    """Batches of a data set in the order of ``numbers``, loaded ahead by worker processes.

    A thin shell around torch's DataLoader, which turns an error in a worker into a long text with
    the worker's traceback: here it arrives as it was raised.

    Args:
        batches: The data set.
        numbers: Which of its batches to bring; iterated anew by each ``iter``.
        num_workers: Processes; 0 loads in this one.
    """

    def __init__(
        self, batches: Dataset[Batch], *, numbers: Iterable[int], num_workers: int
    ) -> None:
        # Set before the interpreter ends its child processes, which it does by SIGTERM.
        ending = multiprocessing.Event()
        atexit.register(ending.set)
        self._loader = DataLoader(
            _ErrorsAsItems(batches),
            batch_size=None,
            sampler=numbers,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=PREFETCH if num_workers > 0 else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=partial(_leave_signals_to_parent, ending),
            # Its own, as each iter() draws from it: loading must not move the run's random state.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Count the batches; a TypeError if there is no end of them."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """Begin at the first of the numbers.

        Raises:
            DataError: If an image cannot be read or decoded.
        """
        for item in self._loader:
            if isinstance(item, DataError):
                raise item
            yield item


def training_loader(
    index: ImageIndex, *, settings: DataSettings, seed: int, rank: int, world_size: int, start: int
) -> Loader:
    """Load training batches without an end; the arguments are those of ``TrainingBatches``."""
    batches = TrainingBatches(
        index,
        seed=seed,
        batch_size=settings.batch_size,
        rank=rank,
        world_size=world_size,
        image_size=settings.image_size,
        channels=settings.channels,
        crop=settings.crop,
        flip=settings.flip,
        start=start,
    )
    return Loader(batches, numbers=_EndlessNumbers(), num_workers=settings.num_workers)


def validation_loader(
    index: ImageIndex, *, settings: DataSettings, rank: int, world_size: int
) -> Loader:
    """Load validation batches, once each; the arguments are those of ``ValidationBatches``."""
    batches = ValidationBatches(
        index,
        batch_size=settings.batch_size,
        rank=rank,
        world_size=world_size,
        image_size=settings.image_size,
        channels=settings.channels,
        crop=settings.crop,
    )
    return Loader(batches, numbers=range(len(batches)), num_workers=settings.num_workers)


class _EndlessNumbers:
    """0, 1, 2 and so on, from 0 again at each ``iter``."""

    def __iter__(self) -> Iterator[int]:
        return count()


class _ErrorsAsItems(Dataset[Batch | DataError]):
    """Hands a user's error on as an item: as an exception it would lose its one line."""

    def __init__(self, batches: Dataset[Batch]) -> None:
        self._batches = batches

    def __getitem__(self, number: int) -> Batch | DataError:
        try:
            return self._batches[number]
        except DataError as error:
            return error


def _leave_signals_to_parent(ending: Event, _worker_id: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which terminals and clusters send to every process of a run.

    The main process ends its step with the batches that it needs, and then ends the workers; if it
    dies, they notice.
    """

    def end_with_parent(_number: int, _frame: FrameType | None) -> None:
        if ending.is_set():
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_with_parent)
