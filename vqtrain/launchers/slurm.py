"""Command lines as jobs of SLURM, through submitit."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, final

from vqtrain.errors import ConfigError, VqtrainError
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
from vqtrain.ranges import at_least, checked, one_of

CLUSTERS = ("slurm", "local", "debug")
# A job is one task, which starts its processes itself; Lightning treats interactive jobs like that.
ALONE = {"SLURM_JOB_NAME": "bash"}


@final
class Slurm(Launcher):
    """Submits each command as a job, and waits for them.

    Args:
        timeout_min: Time limit of a job, in minutes.
        cpus: Cores of a job.
        gpus: GPUs of a job; None for one per device.
        memory_gb: Memory of a job in GB; None for the cluster's default.
        partition: Partition; None for the default.
        account: Account; None for the default.
        more: Other parameters of submitit's executor, such as ``slurm_qos``.
        cluster: ``slurm``; to try it on this machine ``local``, or ``debug`` for this process.

    Raises:
        ConfigError: If submitit or SLURM is not installed.
    """

    @checked
    def __init__(
        self,
        *,
        timeout_min: Annotated[int, at_least(1)] = 60,
        cpus: Annotated[int, at_least(1)] = 8,
        gpus: Annotated[int, at_least(0)] | None = None,
        memory_gb: Annotated[int, at_least(1)] | None = None,
        partition: str | None = None,
        account: str | None = None,
        more: Mapping[str, object] | None = None,
        cluster: Annotated[str, one_of(*CLUSTERS)] = "slurm",
    ) -> None:
        check_package("submitit")
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "launcher=slurm finds no sbatch here: run it on a machine that can submit jobs"
            )
        self._cluster, self._gpus = cluster, gpus
        parameters = {
            "name": "vqtrain",
            "timeout_min": timeout_min,
            "cpus_per_task": cpus,
            "mem_gb": memory_gb,
            "slurm_partition": partition,
            "slurm_account": account,
            **(more or {}),
        }
        self._parameters = {name: value for name, value in parameters.items() if value is not None}

    def launch(
        self, jobs: Sequence[Job], *, logs: Path, tick: Callable[[], None], done: Done
    ) -> None:
        """Run all jobs; see ``Launcher.launch``.

        All machines must see the folder of the logs. Jobs that wait in the queue when this process
        is killed still start.
        """
        import submitit

        try:
            waiting = [
                pair
                for devices in sorted({job.devices for job in jobs})
                for pair in self._submit([job for job in jobs if job.devices == devices], logs)
            ]
        except (NameError, TypeError, ValueError) as error:
            raise ConfigError(f"launcher_options: {error}") from error
        except (OSError, RuntimeError, submitit.core.utils.FailedJobError) as error:
            raise VqtrainError(f"SLURM accepts no jobs: {error}") from error
        try:
            while waiting:
                time.sleep(POLL_S)
                tick()
                for pair in list(waiting):
                    job, submitted = pair
                    if submitted.done():
                        waiting.remove(pair)
                        done(job, _result(submitted))
        finally:
            for _, submitted in waiting:
                submitted.cancel(check=False)

    def _submit(self, jobs: Sequence[Job], logs: Path) -> list[tuple[Job, Any]]:
        """Submit jobs with the same needs."""
        import submitit

        gpus = jobs[0].devices if self._gpus is None else self._gpus
        executor = submitit.AutoExecutor(folder=logs.absolute(), cluster=self._cluster)
        executor.update_parameters(**self._parameters, gpus_per_node=gpus)
        here = str(Path.cwd())
        with executor.batch():
            return [
                (
                    job,
                    executor.submit(
                        run, job, str(logs.absolute() / f"{job.name}.log"), here, ALONE
                    ),
                )
                for job in jobs
            ]


def _result(submitted: Any) -> Ended:  # noqa: ANN401 - of a library without types
    import submitit

    try:
        found: Ended = submitted.result()
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
        where = f"job {submitted.job_id} is {submitted.state}; see {submitted.paths.stderr}"
        return Ended(code=KILLED, reason=where)
    return found
