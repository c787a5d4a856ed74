"""Command lines in processes on this machine, one on each device at a time."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

from vqtrain.errors import require
from vqtrain.launchers.base import POLL_S, Ended, Launcher, ended, start, stop


@final
class Local(Launcher):
    """Runs commands here.

    Args:
        processes: Commands at a time, at least 1. Where there are GPUs, each place has one of them,
            in turn.

    Raises:
        ConfigError: If there is no place.
    """

    def __init__(self, *, processes: int = 1) -> None:
        require(processes >= 1, f"processes must be at least 1, got {processes}")
        self._processes = processes

    def launch(
        self, commands: Sequence[Sequence[str]], *, logs: Path, tick: Callable[[], None]
    ) -> list[Ended]:
        """Run all commands; see ``Launcher.launch``."""
        devices = gpus()
        waiting = deque(enumerate(commands))
        running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
        found: dict[int, Ended] = {}
        try:
            while waiting or running:
                for place in range(self._processes):
                    if place not in running and waiting:
                        number, command = waiting.popleft()
                        process = start(
                            command,
                            log=logs / f"{number}.log",
                            environment=_environment(devices, place),
                            folder=Path.cwd(),
                        )
                        running[place] = number, process
                time.sleep(POLL_S)
                tick()
                for place, (number, process) in list(running.items()):
                    code = process.poll()
                    if code is not None:
                        stop([process])
                        found[number] = ended(code, logs / f"{number}.log")
                        del running[place]
        finally:
            stop([process for _, process in running.values()])
        return [found[number] for number in range(len(commands))]


def _environment(devices: Sequence[str], place: int) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": devices[place % len(devices)]} if devices else {}


def gpus() -> list[str]:
    """List the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    import torch  # seconds, where nothing else needs it

    return [str(number) for number in range(torch.cuda.device_count())]
