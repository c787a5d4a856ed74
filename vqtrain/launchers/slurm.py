"""Command lines as jobs of SLURM, through submitit."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

from vqtrain.errors import ConfigError, VqtrainError
from vqtrain.launchers.base import POLL_S, Ended, Launcher, check_package, run


@final
class Slurm(Launcher):
    """Submits each command as a job, and waits for them.

    Args:
        timeout_min: Time limit of a job, in minutes.
        cpus: Cores of a job.
        gpus: GPUs of a job.
        memory_gb: Memory of a job in GB; None is the cluster's own default.
        partition: Where to submit; None is the default.
        account: Whom to charge; None is the default.
        more: Other parameters of submitit's executor, such as ``slurm_qos``.
        cluster: ``slurm``, or ``local`` to try it on this machine.

    Raises:
        ConfigError: If submitit or SLURM is not here.
    """

    def __init__(
        self,
        *,
        timeout_min: int = 60,
        cpus: int = 8,
        gpus: int = 1,
        memory_gb: int | None = None,
        partition: str | None = None,
        account: str | None = None,
        more: Mapping[str, object] | None = None,
        cluster: str = "slurm",
    ) -> None:
        check_package("submitit")
        if cluster not in ("slurm", "local"):
            raise ConfigError(f"cluster must be slurm or local, got {cluster!r}")
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "launcher=slurm finds no sbatch here: call it where jobs are submitted"
            )
        self._cluster = cluster
        parameters = {
            "name": "vqtrain",
            "timeout_min": timeout_min,
            "cpus_per_task": cpus,
            "gpus_per_node": gpus,
            "mem_gb": memory_gb,
            "slurm_partition": partition,
            "slurm_account": account,
            **(more or {}),
        }
        self._parameters = {name: value for name, value in parameters.items() if value is not None}

    def launch(
        self, commands: Sequence[Sequence[str]], *, logs: Path, tick: Callable[[], None]
    ) -> list[Ended]:
        """Run all commands; see ``Launcher.launch``.

        The folder of the logs must be one that all machines see. Jobs that wait in the queue when
        this process is killed are started nevertheless.
        """
        import submitit

        here = str(Path.cwd())
        files = [str(logs.absolute() / f"{number}.log") for number in range(len(commands))]
        try:
            executor = submitit.AutoExecutor(folder=logs.absolute(), cluster=self._cluster)
            executor.update_parameters(**self._parameters)
            with executor.batch():
                jobs = [
                    executor.submit(run, list(command), file, here)
                    for command, file in zip(commands, files, strict=True)
                ]
        except (NameError, TypeError, ValueError) as error:
            raise ConfigError(f"launcher_options: {error}") from error
        except (OSError, RuntimeError, submitit.core.utils.FailedJobError) as error:
            raise VqtrainError(f"SLURM takes no jobs: {error}") from error
        try:
            while not all(job.done() for job in jobs):
                time.sleep(POLL_S)
                tick()
        finally:
            for job in jobs:
                if not job.done():
                    job.cancel(check=False)
        found = []
        for job in jobs:
            try:
                code, reason = job.result()
            except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
                code, reason = 1, f"job {job.job_id} is {job.state}; see {job.paths.stderr}"
            found.append(Ended(code=code, reason=reason))
        return found
