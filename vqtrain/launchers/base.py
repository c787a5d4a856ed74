"""What launchers share: a vqtrain command line in a process of its own, and how it ended."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from vqtrain.errors import ConfigError

# What a command may take to end in order before it is killed.
GRACE_S = 30.0
# Between two looks at what is running.
POLL_S = 0.2
# The code of what was ended from outside, without a word of its own.
KILLED = 128 + signal.SIGKILL


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """Command lines that run one after the other, until one fails.

    Attributes:
        name: Of its log.
        commands: The words after ``vqtrain`` of each.
        devices: So many it needs at once, all on one machine.
        environment: Added to that in which it runs.
    """

    name: str
    commands: Sequence[Sequence[str]]
    devices: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a job ended.

    Attributes:
        code: The exit code of its last command; 128 + n if signal n ended it.
        reason: The last line that it wrote, or what is known instead.
    """

    code: int
    reason: str


Done = Callable[[Job, Ended], None]


class Launcher(ABC):
    """Runs vqtrain command lines somewhere; its arguments are what a user may set."""

    @abstractmethod
    def launch(
        self, jobs: Sequence[Job], *, logs: Path, tick: Callable[[], None], done: Done
    ) -> None:
        """Run all jobs, also after one has failed.

        If this is interrupted, the jobs end, too, and so they do if this process is killed.

        Args:
            jobs: What to run; each starts when there is room for it, in this order.
            logs: Folder of what they write: a job writes ``NAME.log``.
            tick: Called now and then while they run.
            done: Called for each job as soon as it has ended.
        """


def check_package(name: str) -> None:
    """Refuse a launcher whose library is not here.

    Raises:
        ConfigError: If it is not.
    """
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f'launcher needs {name}: pip install "vqtrain[cluster]"')


def start(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path
) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own, so that Ctrl-C comes to it by us alone.

    It ends by itself when this process does, however that ends.

    Args:
        command: The words after ``vqtrain``.
        log: File of what it writes; it goes on with one that exists.
        environment: Added to that of this process.
        folder: Where it runs.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "vqtrain.launchers.parts.child", *command],
            stdin=subprocess.PIPE,  # the child sees its end
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=folder,
            start_new_session=True,
        )


def stop(processes: Iterable["subprocess.Popen[bytes]"]) -> None:
    """End commands in order, and after a while by force; nothing if they have ended."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for process in processes:
        if process.stdin is not None:
            process.stdin.close()


def ended(code: int, log: Path) -> Ended:
    """Say how a command ended, by Popen's code and the end of its log."""
    if code < 0:
        return Ended(code=128 - code, reason=f"it was ended by {signal.Signals(-code).name}")
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    last = lines[-1].strip() if lines else "it wrote nothing"
    return Ended(code=code, reason=last.removeprefix("vqtrain: "))


@final
class Running:
    """A job that runs on this machine.

    Args:
        job: Of which the first command is started.
        log: File of what all of its commands write.
        folder: Where they run.
        environment: Added to that of the job.

    Attributes:
        process: Of the command that runs.
    """

    def __init__(
        self, job: Job, *, log: Path, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self._waiting = deque(job.commands)
        self._log, self._folder = log, folder
        self._environment = {**job.environment, **environment}
        self.process = self._start_next()

    def _start_next(self) -> "subprocess.Popen[bytes]":
        command = self._waiting.popleft()
        return start(command, log=self._log, environment=self._environment, folder=self._folder)

    def poll(self) -> Ended | None:
        """Start the next command if one has ended well; return how the job ended, if it has."""
        code = self.process.poll()
        if code is None:
            return None
        self.stop()
        if code == 0 and self._waiting:
            self.process = self._start_next()
            return None
        return ended(code, self._log)

    def stop(self) -> None:
        """End it in order, and after a while by force; nothing if it has ended."""
        stop([self.process])


def run(job: Job, log: str, folder: str, environment: Mapping[str, str]) -> Ended:
    """Run one job to its end: what a cluster calls on another machine."""
    running = Running(job, log=Path(log), folder=Path(folder), environment=environment)
    try:
        while (found := running.poll()) is None:
            time.sleep(POLL_S)
    finally:
        running.stop()
    return found
