"""Processes that read, check and encode images, and hand the results back in order."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from types import TracebackType
from typing import TypeVar, final

from vqtrain.errors import FailedError

# Tasks under way or waiting to be written, per process: bounds the memory, rides out slow ones.
AHEAD = 3

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Task = TypeVar("Task")
Result = TypeVar("Result")


@final
class Workers:
    """Processes that apply functions to tasks; a context, at whose end they end.

    They end by themselves if this process is killed.

    Args:
        num_workers: How many; 0 does the work in this process.
    """

    def __init__(self, *, num_workers: int) -> None:
        self._num_workers = num_workers
        self._pool = ProcessPoolExecutor(
            max(1, num_workers),
            # A fork would inherit the threads of a progress bar in any state.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_end_with_parent,
        )

    def __enter__(self) -> "Workers":
        """Begin; the processes are started by the first tasks."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the tasks under way, and end the processes."""
        # Some seconds at most. If a second Ctrl-C came between, the pool would wait for ever.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
        try:
            self._pool.shutdown(cancel_futures=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Apply a function to every task, and give the results in the order of the tasks.

        Raises:
            FailedError: If a process was killed, or as the function raises.
        """
        if self._num_workers == 0:
            yield from map(function, tasks)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._submit(function, task))
                if len(waiting) > AHEAD * self._num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise FailedError(
                "a process that reads images was killed, perhaps as memory ran out: give a "
                f"smaller num_workers than {self._num_workers}; what is written is kept"
            ) from error

    def _submit(self, function: Callable[[Task], Result], task: Task) -> "Future[Result]":
        # A process that is started here inherits what is blocked: Ctrl-C goes to all processes of a
        # terminal, and only this one is to answer.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._pool.submit(function, task)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a child process is initialized"

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()
