"""A command on several processes, started here or by a launcher such as torchrun."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import torch

from vqtrain import distributed
from vqtrain.errors import ConfigError, FailedError
from vqtrain.launchers.base import POLL_S, Ended, ended, start, stop
from vqtrain.ops.cores import count_cores
from vqtrain.ops.signals import heard

# How long a rank waits for another: the slowest may have all the large images.
TIMEOUT = timedelta(hours=1)
# Seconds in which a failed rank ends after another rank has lost it.
GRACE_S = 2.0
# Line width of output into a file, in characters.
WIDTH = 200
LOST = "another process has ended: look at what it printed"


def is_rank() -> bool:
    """Say whether this process is one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Say whether this process is the one that writes and prints."""
    return os.environ.get("RANK", "0") == "0"


def local_rank() -> int:
    """Return the number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Return a context in which this process can communicate with the others, if there are any.

    Raises:
        VqtrainError: If they cannot be reached, or one of them ends.
    """
    if not is_rank():
        yield
        return
    with ExitStack() as stack:
        # A Python handler would not run while this waits for the others; nothing is lost yet.
        numbers = (signal.SIGINT, *heard())
        handlers = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
        try:
            with distributed.waiting_is_told(is_told=local_rank() == 0):
                stack.enter_context(distributed.process_group(device, TIMEOUT))
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise FailedError(f"the processes cannot reach each other: {reason}") from error
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        try:
            yield
        except RuntimeError as error:
            if not distributed.is_lost_peer(error):
                raise
            raise FailedError(LOST) from error


def launch(command: Sequence[str], count: int) -> None:
    """Run a vqtrain command on processes of this machine, and print what the first one does.

    Args:
        command: The words after ``vqtrain``.
        count: Processes, at least 2.

    Raises:
        ConfigError: If the command is wrong.
        VqtrainError: If a process fails; the others are ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{rank}.log" for rank in range(count)]
        port = _free_port()
        processes = [
            start(command, log=log, environment=_environment(rank, count, port), folder=Path.cwd())
            for rank, log in enumerate(logs)
        ]
        try:
            with logs[0].open(encoding="utf-8", errors="replace") as output:
                while True:
                    is_over = all(process.poll() is not None for process in processes)
                    for line in output:
                        if not line.startswith("vqtrain: "):  # reported below
                            sys.stdout.write(line)
                    sys.stdout.flush()
                    if is_over or any(process.poll() for process in processes):
                        break
                    time.sleep(POLL_S)
            ends = _ends(processes, logs)
        finally:
            stop(processes)
    for rank, end in ends.items():
        if end.code == 2:
            raise ConfigError(end.reason)
        raise FailedError(f"process {rank} of {count} ended with code {end.code}: {end.reason}")


def _ends(
    processes: Sequence["subprocess.Popen[bytes]"], logs: Sequence[Path]
) -> Mapping[int, Ended]:
    """Return how the failed ranks ended; only the causes, without ranks that lost another one."""
    deadline = time.monotonic() + GRACE_S
    while True:
        failed = {
            rank: ended(process.returncode, logs[rank])
            for rank, process in enumerate(processes)
            if process.poll()
        }
        causes = {rank: end for rank, end in failed.items() if end.reason != LOST}
        if causes or not failed or time.monotonic() > deadline:
            return causes or failed
        time.sleep(POLL_S)


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    """Return the variables that torchrun sets for a process."""
    threads = str(max(1, count_cores() // count))  # by default each would use all cores
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
        "COLUMNS": str(shutil.get_terminal_size((WIDTH, 0)).columns),  # they have no terminal
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
