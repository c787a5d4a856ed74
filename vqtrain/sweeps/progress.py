"""A sweep in progress: the commands left to run, and the results so far."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import final

from vqtrain.launchers.base import Ended
from vqtrain.sweeps import plot, results, tables
from vqtrain.sweeps.commands import evaluate_command, metrics_of, train_command
from vqtrain.sweeps.grid import Grid
from vqtrain.sweeps.job import SweepJob, read_failure, write_failure
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
        has_trained: Says whether a run has reached its last step.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        command: str,
        images: Sequence[str],
        has_trained: Callable[[SweepJob], bool],
    ) -> None:
        self.grid, self._command, self._images = grid, command, images
        self._has_trained = has_trained
        self._jobs = {job.name: job for job in grid.jobs}
        self._metrics = metrics_of(grid.jobs)
        self._states: dict[str, State] = {}

    def is_done(self, job: SweepJob) -> bool:
        """Say whether a run has failed, or has been trained and evaluated."""
        if read_failure(job.run_dir) is not None:
            return True
        return self._has_trained(job) and results.read_evaluation(job.evaluation) is not None

    def commands_of(self, job: SweepJob) -> list[list[str]]:
        """Return the command lines of a run that are still to run."""
        if self.is_done(job):
            return []
        evaluate = evaluate_command(job, images=self._images, metrics=self._metrics)
        if self._has_trained(job):
            return [evaluate]
        return [train_command(job, self.grid.sweep_dir.resolve().name), evaluate]

    def begin(self, job: SweepJob) -> list[list[str]]:
        """Remove the files of an interrupted evaluation, and return ``commands_of``."""
        commands = self.commands_of(job)
        if commands:
            shutil.rmtree(job.evaluation, ignore_errors=True)
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
        )
        results.save(result, folder)
        tables.save_tables(result, folder)
        return result
