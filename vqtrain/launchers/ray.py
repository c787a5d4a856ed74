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
        address: Of the cluster; None for ``RAY_ADDRESS``, or else a local cluster that is started
            and ended here, and not reachable from other machines.
        cpus: Cores of a task.
        gpus: GPUs of a task; None for one per device of the job, if the cluster has GPUs.

    Raises:
        ConfigError: If ray is not installed, or a number is out of range.
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
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports
        if address == "local":
            # This variable makes Ray use the loopback device, on Linux too.
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
                signal.signal(signal.SIGTERM, before)  # Ray installs its own
        return ray


def _check_address(address: str) -> None:
    """Try to connect to a cluster: Ray itself would retry for minutes, with many lines of output.

    Raises:
        VqtrainError: If the connection fails.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return  # a special word, such as local or auto
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or error
        raise VqtrainError(f"cannot reach the Ray cluster at {address}: {reason}") from error


def _result(ray: Any, task: object) -> Ended:  # noqa: ANN401 - as above
    try:
        found: Ended = ray.get(task)
    except ray.exceptions.RayError as error:
        return Ended(code=KILLED, reason=f"killed by Ray: {str(error).splitlines()[0]}")
    return found
