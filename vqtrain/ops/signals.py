"""Signals that ask a command to end: from a terminal, a cluster or a user."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A terminal that closes sends HUP; clusters send what their users choose ahead of the end of a job,
# mostly USR1 (as Lightning advises) or USR2 (submitit).
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# Seconds that a handler has to end the process before it is ended without it.
GRACE_S = 2.0


def heard() -> list[signal.Signals]:
    """List the signals of ``ENDING`` that this process is to hear: nohup lets it ignore HUP."""
    return [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def enforced(end: Callable[[], None], spared: Callable[[], int]) -> Iterator[None]:
    """Return a context in which signals end the process, whatever it waits for.

    Python calls handlers between its own instructions alone: not while C++ code waits for another
    process, which may be for ever.

    Args:
        end: Called before the end, in another thread.
        spared: Returns how many signals do not end the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(reader, is_over, end, spared), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        signal.set_wakeup_fd(before)
        os.write(writer, b"\0")  # workers hold the pipe open as well, so that it would not end
        watcher.join()
        os.close(writer)
        os.close(reader)


def _watch(
    reader: int, is_over: threading.Event, end: Callable[[], None], spared: Callable[[], int]
) -> None:
    count = 0
    while not is_over.is_set():
        number = os.read(reader, 1)[0]
        count += number in (signal.SIGINT, *ENDING)
        if count > spared() and not is_over.wait(GRACE_S):
            end()
            os._exit(128 + number)


class OutOfTime(BaseException):
    """The end of a time limit; no handler of errors takes it for one."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Return a context that is left by ``OutOfTime`` after some seconds; in the main thread only.

    Code outside Python finishes first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
