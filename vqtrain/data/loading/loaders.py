"""Batches loaded by worker processes, ahead of time and in order."""

import multiprocessing
import os
import signal
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from multiprocessing.synchronize import Event
from multiprocessing.util import Finalize
from types import FrameType
from typing import TypeVar, final

import torch
from torch.utils.data import DataLoader, Dataset

from vqtrain.data.loading.commands import end_commands
from vqtrain.errors import DataError, FailedError
from vqtrain.ops.memory import give_back_freed_memory
from vqtrain.ops.signals import ENDING

# Batches that each worker prefetches, so that slow images cause no wait.
PREFETCH = 4

Item = TypeVar("Item")


@final
class Loader(Iterable[Item]):
    """Items of a data set, such as batches, in the order of ``numbers``, loaded ahead by workers.

    A wrapper of torch's DataLoader, which would turn an error in a worker into a long text with the
    worker's traceback. Here the error is raised unchanged.

    Args:
        batches: The data set.
        numbers: Which of its batches to load; None for 0, 1, 2 and so on without an end.
        num_workers: Processes; 0 loads in this one.
    """

    def __init__(
        self, batches: Dataset[Item], *, numbers: Sequence[int] | None = None, num_workers: int
    ) -> None:
        # Set before this process ends its child processes, which it does by SIGTERM. Not by atexit,
        # of which a process that multiprocessing has started runs nothing.
        ending = multiprocessing.Event()
        Finalize(None, ending.set, exitpriority=0)
        self._loader = DataLoader(
            _ErrorsAsItems(batches),
            batch_size=None,
            sampler=_Endless() if numbers is None else numbers,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=PREFETCH if num_workers > 0 else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=partial(_leave_signals_to_parent, ending),
            # Its own generator, so that iter() does not change the run's random state.
            generator=torch.Generator(),
        )
        self._forks_next = num_workers > 0
        # Referenced from outside until this is deleted: in a reference cycle, as Lightning and
        # raised errors create, the workers' pipes could close before the workers are stopped.
        weakref.finalize(self, _let_go, self._loader).atexit = False

    def __len__(self) -> int:
        """Count the batches; a TypeError if they have no end."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Item]:
        """Start at the first of the numbers.

        Raises:
            DataError: If a server does not answer, or too many images in a row are bad.
        """
        if self._forks_next:
            give_back_freed_memory()
            self._forks_next = False
        for item in self._loader:
            if isinstance(item, DataError):
                raise item
            yield item


@contextmanager
def explained_workers(num_workers: int) -> Iterator[None]:
    """Return a context in which a worker process that is killed is an error in one line.

    Raises:
        FailedError: If one is killed.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise FailedError(
            "a process that reads images was killed, perhaps because memory ran out: give a "
            f"smaller num_workers than {num_workers}; what is written is kept"
        ) from error


def _let_go(_loader: DataLoader[Item | DataError]) -> None:
    """Drop the last reference but those that are garbage themselves."""


class _Endless(Iterable[int]):
    def __iter__(self) -> Iterator[int]:
        return count()


class _ErrorsAsItems(Dataset[Item | DataError]):
    """Hands a user's error on as an item: as an exception it would lose its one line."""

    def __init__(self, batches: Dataset[Item]) -> None:
        self._batches = batches

    def __getitem__(self, number: int) -> Item | DataError:
        try:
            return self._batches[number]
        except DataError as error:
            return error


def _leave_signals_to_parent(ending: Event, _worker_id: int) -> None:
    """Ignore the signals that terminals and clusters send to every process of a run.

    The main process finishes its step with the batches that it needs, and then stops the workers.
    If it dies, they end too.
    """

    def end_with_parent(_number: int, _frame: FrameType | None) -> None:
        if ending.is_set():
            end_commands()
            os._exit(0)

    Finalize(None, end_commands, exitpriority=0)  # a worker runs nothing of atexit
    signal.set_wakeup_fd(-1)  # of the main process, which counts its signals there
    for number in (signal.SIGINT, *ENDING):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end_with_parent)
