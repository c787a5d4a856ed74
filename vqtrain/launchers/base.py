"""The contract of launchers: a vqtrain command line in its own process, and how it ended."""

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

# Seconds that a command has for an orderly end before it is killed.
GRACE_S = 30.0
# Seconds between two polls.
POLL_S = 0.2
# The exit code of a job that was killed from outside.
KILLED = 128 + signal.SIGKILL


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """Command lines that run one after the other, until one fails.

    Attributes:
        name: Of its log.
        commands: The words after ``vqtrain`` of each command.
        devices: Devices that it needs, all on one machine.
        environment: Variables that are added to the environment.
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
        reason: The last line of its output, or another reason.
    """

    code: int
    reason: str


Done = Callable[[Job, Ended], None]


class Launcher(ABC):
    """Runs vqtrain command lines somewhere; its arguments are options for users."""

    @abstractmethod
    def launch(
        self, jobs: Sequence[Job], *, logs: Path, tick: Callable[[], None], done: Done
    ) -> None:
        """Run all jobs; a failed job does not stop the others.

        The jobs end when this is interrupted or this process is killed.

        Args:
            jobs: The jobs; each starts when there is room for it, in this order.
            logs: Folder of their logs, ``NAME.log``.
            tick: Called regularly while they run.
            done: Called for each job as soon as it has ended.
        """


def check_package(name: str) -> None:
    """Refuse a launcher whose library is not installed.

    Raises:
        ConfigError: If it is missing.
    """
    if importlib.util.find_spec(name) is None:
        raise ConfigError(f'launcher needs {name}: pip install "vqtrain[cluster]"')


def start(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path
) -> "subprocess.Popen[bytes]":
    """Start a command in its own session, so that the terminal's Ctrl-C does not reach it.

    It ends when this process ends, even if this process is killed.

    Args:
        command: The words after ``vqtrain``.
        log: File of its output, which is appended.
        environment: Variables that are added to those of this process.
        folder: The working directory.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "vqtrain.launchers.parts.child", *command],
            stdin=subprocess.PIPE,  # closes when this process ends
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=folder,
            start_new_session=True,
        )


def stop(processes: Iterable["subprocess.Popen[bytes]"]) -> None:
    """Terminate commands, and kill those that do not end in time."""
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
    """Describe how a command ended, from Popen's code and the end of its log."""
    if code < 0:
        return Ended(code=128 - code, reason=f"killed by {signal.Signals(-code).name}")
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    last = lines[-1].strip() if lines else "no output"
    return Ended(code=code, reason=last.removeprefix("vqtrain: "))


@final
class Running:
    """A job that runs on this machine.

    Args:
        job: The job, whose first command is started.
        log: File of the output of all its commands.
        folder: The working directory.
        environment: Variables that are added to those of the job.

    Attributes:
        process: The process of the current command.
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
        """Start the next command after a successful one; return how the job ended, if it has."""
        code = self.process.poll()
        if code is None:
            return None
        self.stop()
        if code == 0 and self._waiting:
            self.process = self._start_next()
            return None
        return ended(code, self._log)

    def stop(self) -> None:
        """Terminate the current command, and kill it if it does not end in time."""
        stop([self.process])


def run(job: Job, log: str, folder: str, environment: Mapping[str, str]) -> Ended:
    """Run one job to its end; called on a machine of a cluster."""
    running = Running(job, log=Path(log), folder=Path(folder), environment=environment)
    try:
        while (found := running.poll()) is None:
            time.sleep(POLL_S)
    finally:
        running.stop()
    return found
