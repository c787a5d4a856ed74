"""A sweep in progress: the commands left to run, and the results so far."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import final

from vqtrain.launchers.base import Ended
from vqtrain.sweeps import plot, results, tables
from vqtrain.sweeps.commands import (
    ProbeRequest,
    evaluate_command,
    metrics_of,
    probe_command,
    train_command,
)
from vqtrain.sweeps.grid import Grid
from vqtrain.sweeps.job import SweepJob, read_failure, write_failure
from vqtrain.sweeps.probes import is_probed
from vqtrain.sweeps.results import JobResult, SweepResult

# Exit codes from here on mean signals: the next call resumes the run.
FIRST_SIGNAL = 128
State = tuple[str, int | None, str]


@final
class Sweep:
    """The commands that are left to run, and the results so far.

    Args:
        grid: The runs.
        command: The command line, without passwords.
        images: The word ``images=...``, or none.
        probe: What is to be probed, or None.
        has_trained: Says whether a run has reached its last step.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        command: str,
        images: Sequence[str],
        probe: ProbeRequest | None,
        has_trained: Callable[[SweepJob], bool],
    ) -> None:
        self.grid, self._command, self._images = grid, command, images
        self._probe, self._has_trained = probe, has_trained
        self._jobs = {job.name: job for job in grid.jobs}
        self._metrics = metrics_of(grid.jobs)
        self._states: dict[str, State] = {}

    def is_done(self, job: SweepJob) -> bool:
        """Say whether a run has failed, or has been trained, evaluated and probed."""
        return not self.commands_of(job)

    def commands_of(self, job: SweepJob) -> list[list[str]]:
        """Return the command lines of a run that are still to run."""
        if read_failure(job.run_dir) is not None:
            return []
        commands = []
        has_trained = self._has_trained(job)
        if not has_trained:
            commands.append(train_command(job, self.grid.sweep_dir.resolve().name))
        if not (has_trained and results.read_evaluation(job.evaluation)):
            images, metrics = self._images, self._metrics
            commands.append(evaluate_command(job, images=images, metrics=metrics))
        if self._probe and job.has_ids and not (has_trained and is_probed(job, self._stages)):
            commands.append(probe_command(job, self._probe, images=self._images))
        return commands

    @property
    def not_probed(self) -> list[str]:
        """Names of the runs that cannot be probed, as they have no ids."""
        return [job.name for job in self.grid.jobs if self._probe and not job.has_ids]

    @property
    def _stages(self) -> Sequence[str]:
        return self._probe.stages if self._probe else ()

    def begin(self, job: SweepJob) -> list[list[str]]:
        """Remove what an interruption has left of an evaluation, and return ``commands_of``.

        A probe is continued, unless it is of a run that goes on.
        """
        commands = self.commands_of(job)
        first = commands[0][0] if commands else ""
        if first in ("train", "evaluate"):
            shutil.rmtree(job.evaluation, ignore_errors=True)
        if first == "train":
            shutil.rmtree(job.probe, ignore_errors=True)
        return commands

    def end(self, name: str, end: Ended, *, running: Sequence[str]) -> JobResult:
        """Record how a run ended, write the results so far, and return those of the run."""
        job = self._jobs[name]
        if 0 < end.code < FIRST_SIGNAL:
            write_failure(job.run_dir, code=end.code, reason=end.reason)
        elif end.code == 0 and not self._has_trained(job):
            reason = "trainer.max_time is over: run the same command again to resume it"
            self._states[name] = results.INTERRUPTED, 0, reason
            shutil.rmtree(job.evaluation, ignore_errors=True)
        elif end.code:
            self._states[name] = results.INTERRUPTED, end.code, end.reason
        result = self._write(dict.fromkeys(running, (results.RUNNING, None, "")))
        return next(each for each in result.jobs if each.name == name)

    def conclude(self, begun: Sequence[str]) -> SweepResult:
        """Write all results; the named runs are interrupted unless more is known."""
        state = results.INTERRUPTED, None, "run the same command again to resume it"
        result = self._write(dict.fromkeys(begun, state))
        plot.save_plot(result, self.grid.sweep_dir)
        return result

    def _write(self, states: Mapping[str, State]) -> SweepResult:
        folder = self.grid.sweep_dir
        result = results.collect(
            self.grid.jobs,
            command=self._command,
            axes=self.grid.axes,
            sweep_dir=folder,
            states={**states, **self._states},
            stages=self._stages,
        )
        results.save(result, folder)
        tables.save_tables(result, folder)
        return result
