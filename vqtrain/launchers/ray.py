"""Command lines as tasks of a Ray cluster."""

import importlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, final

from vqtrain.errors import VqtrainError
from vqtrain.launchers.base import (
    KILLED,
    POLL_S,
    Done,
    Ended,
    Job,
    Launcher,
    check_package,
    run,
)
from vqtrain.ranges import above, at_least, checked

CONNECT_S = 10.0


@final
class Ray(Launcher):
    """Runs each job as a task.

    Args:
        address: Of the cluster; None is the one that ``RAY_ADDRESS`` names, or else one that is
            started on this machine, reachable from it alone, and ended at the end.
        cpus: Cores of a task.
        gpus: GPUs of a task; None is one for each device of the job where the cluster has some.

    Raises:
        ConfigError: If ray is not here, or a number is impossible.
    """

    @checked
    def __init__(
        self,
        *,
        address: str | None = None,
        cpus: Annotated[float, above(0)] = 1.0,
        gpus: Annotated[float, at_least(0)] | None = None,
    ) -> None:
        check_package("ray")
        self._address, self._cpus, self._gpus = address, cpus, gpus

    def launch(
        self, jobs: Sequence[Job], *, logs: Path, tick: Callable[[], None], done: Done
    ) -> None:
        """Run all jobs; see ``Launcher.launch``.

        The folder of the logs must be one that all machines see.
        """
        ray = self._connect()
        try:
            has_gpus = ray.cluster_resources().get("GPU", 0) > 0
            here = str(Path.cwd())
            waiting: dict[Any, Job] = {}
            for job in jobs:
                gpus = self._gpus if self._gpus is not None else float(has_gpus * job.devices)
                task = ray.remote(num_cpus=self._cpus, num_gpus=gpus, max_retries=0)(run)
                log = str(logs.absolute() / f"{job.name}.log")
                waiting[task.remote(job, log, here, {})] = job
            while waiting:
                ended, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL_S)
                tick()
                for one in ended:
                    done(waiting.pop(one), _result(ray, one))
        finally:
            ray.shutdown()

    def _connect(self) -> Any:  # noqa: ANN401 - a module, whose functions have no types
        address = self._address or os.environ.get("RAY_ADDRESS") or "local"
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
        if address == "local":
            # What Ray calls so keeps it on the loopback device, here as on those systems.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        _check_address(address)
        ray: Any = importlib.import_module("ray")  # reads them; a second, where nothing needs it
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise VqtrainError(f"cannot reach the Ray cluster: {error}") from error
        finally:
            if is_main:
                signal.signal(signal.SIGTERM, before)  # Ray puts its own
        return ray


def _check_address(address: str) -> None:
    """Knock at a cluster's door: Ray itself knocks for minutes, and says so in many lines.

    Raises:
        VqtrainError: If nobody answers.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return  # a word of Ray's, such as local or auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or error
        raise VqtrainError(f"cannot reach the Ray cluster at {address}: {reason}") from error


def _result(ray: Any, task: object) -> Ended:  # noqa: ANN401 - as above
    try:
        found: Ended = ray.get(task)
    except ray.exceptions.RayError as error:
        return Ended(code=KILLED, reason=f"Ray ended it: {str(error).splitlines()[0]}")
    return found
