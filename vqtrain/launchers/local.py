"""Command lines in processes on this machine, each on its own devices."""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, final

from vqtrain.launchers.base import POLL_S, Done, Job, Launcher, Running, stop
from vqtrain.ranges import at_least, checked


@final
class Local(Launcher):
    """Runs jobs here.

    Args:
        processes: Devices in use at a time, at least 1; a job that needs more gets them. If there
            are GPUs, each device is one of them, in turn.

    Raises:
        ConfigError: If there is no device.
    """

    @checked
    def __init__(self, *, processes: Annotated[int, at_least(1)] = 1) -> None:
        self._processes = processes

    def launch(
        self, jobs: Sequence[Job], *, logs: Path, tick: Callable[[], None], done: Done
    ) -> None:
        """Run all jobs; see ``Launcher.launch``."""
        names = gpus()
        free = list(range(max(self._processes, *(job.devices for job in jobs), 0)))
        waiting = deque(jobs)
        running: list[tuple[Job, list[int], Running]] = []
        try:
            while waiting or running:
                while waiting and (taken := _take(free, waiting[0].devices, len(names))):
                    job = waiting.popleft()
                    started = Running(
                        job,
                        log=logs / f"{job.name}.log",
                        folder=Path.cwd(),
                        environment=_environment(names, taken),
                    )
                    running.append((job, taken, started))
                time.sleep(POLL_S)
                tick()
                for entry in list(running):
                    job, taken, started = entry
                    if (found := started.poll()) is not None:
                        running.remove(entry)
                        free = sorted([*free, *taken])
                        done(job, found)
        finally:
            stop([started.process for _, _, started in running])


def _take(free: list[int], count: int, num_gpus: int) -> list[int]:
    """Take free devices, on different GPUs; none if there are too few."""
    are_told_apart = num_gpus >= count
    by_device = {place % num_gpus if are_told_apart else place: place for place in free[::-1]}
    if len(by_device) < count:
        return []
    taken = sorted(by_device.values())[:count]
    for place in taken:
        free.remove(place)
    return taken


def _environment(names: Sequence[str], places: Sequence[int]) -> dict[str, str]:
    if not names:
        return {}
    return {"CUDA_VISIBLE_DEVICES": ",".join(names[place % len(names)] for place in places)}


def gpus() -> list[str]:
    """List the GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name not in ("", "-1")]
    import torch  # takes seconds, and nothing else here needs it

    return [str(number) for number in range(torch.cuda.device_count())]
