"""Which signals end a command, and that the second one does."""

import os
import signal
import subprocess
import sys
import time

import pytest

from vqtrain.app.parts.output import ending_in_order
from vqtrain.errors import Interrupted
from vqtrain.ops import signals

# Locks a mutex of C twice: no handler of Python runs any more.
STUCK = """
import ctypes, signal, sys
from vqtrain.ops import signals
signals.GRACE_S = 0.1
signal.signal(signal.SIGTERM, lambda *_: None)
mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
with signals.enforced(lambda: print("ended", flush=True), lambda: 1):
    lock(mutex)
    print("waiting", flush=True)
    lock(mutex)
"""


@pytest.mark.parametrize("number", signals.ENDING)
def test_each_of_them_ends_a_command_in_order(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with ending_in_order(), pytest.raises(Interrupted) as raised:
        signal.raise_signal(number)
    assert raised.value.signal_number == number
    assert signal.getsignal(number) is before


def test_what_nohup_lets_a_command_ignore_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in signals.heard()
        with ending_in_order():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.SIGHUP in signals.heard()


def test_the_second_signal_ends_a_process_in_which_no_handler_runs() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True
    ) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == "waiting\n"
        stuck.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            stuck.wait(0.3)
        stuck.terminate()
        assert stuck.wait(20) == 143
        assert stuck.stdout.read() == "ended\n"


def test_a_handler_that_runs_is_not_disturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "_exit", lambda _: pytest.fail("ended"))
    received: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: received.append(number))
    try:
        with signals.enforced(lambda: pytest.fail("ended"), lambda: 0):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert received == [signal.SIGUSR1] * 2
    assert signal.set_wakeup_fd(-1) == -1


def test_what_takes_too_long_is_left() -> None:
    def sleep() -> None:
        try:
            time.sleep(20)
        except Exception:  # as in code that goes on after errors
            pytest.fail("went on")

    before = signal.getsignal(signal.SIGALRM)
    with signals.time_limit(0.05), pytest.raises(signals.OutOfTime):
        sleep()
    with signals.time_limit(0.05):
        pass
    time.sleep(0.1)
    assert signal.getsignal(signal.SIGALRM) is before
