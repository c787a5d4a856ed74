"""``vqtrain sweep``: one run for each combination of values, one table, one picture."""

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, final

from filelock import FileLock, Timeout
from rich.console import Console

from vqtrain.app.base import Command
from vqtrain.app.compose import CommandLine, describe_keys
from vqtrain.app.grid import difference, read_grid
from vqtrain.app.keys import describe_launchers
from vqtrain.app.output import ending_in_order, expand
from vqtrain.app.ranks import WIDTH
from vqtrain.app.sweep_commands import (
    check_keys,
    evaluate_command,
    make_launcher,
    metrics_of,
    train_command,
)
from vqtrain.build import resolve
from vqtrain.data.servers import shareable
from vqtrain.errors import CheckpointError, ConfigError, Interrupted, VqtrainError, require
from vqtrain.launchers.base import Ended, Job, Launcher
from vqtrain.launchers.local import Local
from vqtrain.ranges import at_least
from vqtrain.reports import page
from vqtrain.sweeps import plot, results, tables
from vqtrain.sweeps.grid import Grid, refuse_others
from vqtrain.sweeps.job import LOGS, SweepJob, read_failure, write_failure
from vqtrain.sweeps.results import SweepResult
from vqtrain.sweeps.screen import SweepScreen
from vqtrain.training import run_directory

# Codes from here on are those of signals: the run goes on with the next call.
FIRST_SIGNAL = 128


@final
class SweepCommand(Command):
    """Trains and evaluates one tokenizer for each combination of values."""

    is_composed = True

    def details(self, command_line: CommandLine) -> str:
        """Return the launchers, and the groups and keys of ``vqtrain train``."""
        alone = replace(command_line, paths={}, overrides=[])
        return f"{describe_launchers()}\n\n{describe_keys('train', alone)}"

    def run(
        self,
        *,
        words: list[str],
        command_line: CommandLine,
        images: str | list[str | dict[str, object]] | None,
        sweep_dir: str | None,
        launcher: str,
        devices: Annotated[int, at_least(1)] | None,
        launcher_options: dict[str, object],
    ) -> int:
        """Sweep, and say what came of it."""
        image_words = [word for word in words if images and word.startswith("images=")]
        check_keys(launcher, devices, launcher_options)
        require(sweep_dir != "", "sweep_dir must name a folder, got nothing")
        folder = expand(sweep_dir) if sweep_dir else None
        require(folder is None or not folder.is_file(), f"sweep_dir={sweep_dir} is a file")
        grid = read_grid(command_line, folder, is_here=resolve("launcher", launcher) is Local)
        refuse_others(grid, difference)
        sweep = Sweep(
            grid=grid, typed=shlex.join(["vqtrain", "sweep", *words]), images=image_words[-1:]
        )
        if command_line.print_config:
            sweep.print_commands()
            return 0
        found, environment = make_launcher(
            launcher, devices=devices, options=launcher_options, jobs=grid.jobs
        )
        with ending_in_order():
            return launch_all(sweep, found, environment)


def launch_all(sweep: "Sweep", launcher: Launcher, environment: Mapping[str, str]) -> int:
    """Run what is to be run, and say what came of it."""
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(highlight=False, soft_wrap=True, width=width)
    try:
        sweep.grid.sweep_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {sweep.grid.sweep_dir}: {error.strerror}") from error
    try:
        with FileLock(sweep.grid.sweep_dir / ".lock", blocking=False):
            sweep.introduce(console)
            try:
                waiting = [
                    Job(
                        name=job.name,
                        commands=commands,
                        devices=job.devices,
                        environment=environment,
                    )
                    for job in sweep.grid.jobs
                    if (commands := sweep.begin(job))
                ]
                screen = sweep.screen(console, [job.name for job in waiting])
                with screen.shown():
                    launcher.launch(
                        waiting,
                        logs=sweep.grid.sweep_dir / LOGS,
                        tick=screen.tick,
                        done=lambda job, end: sweep.end(job.name, end, screen),
                    )
            except (KeyboardInterrupt, Interrupted):
                console.print("stopped; the same command goes on with what is missing")
                raise
            finally:
                result = sweep.conclude(console)
    except Timeout as error:
        raise CheckpointError(f"{sweep.grid.sweep_dir} is in use by another sweep") from error
    except OSError as error:
        failure = VqtrainError(f"cannot write {sweep.grid.sweep_dir}: {error.strerror or error}")
        failure.exit_code = 1
        raise failure from error
    return 0 if result.is_whole else 1


class Sweep:
    """A sweep under way: what its runs do next, and what has come of them.

    Args:
        grid: The runs.
        typed: The command line.
        images: The word ``images=...``, or none.
    """

    def __init__(self, *, grid: Grid, typed: str, images: Sequence[str]) -> None:
        self.grid, self._typed, self._images = grid, typed, images
        self._jobs = {job.name: job for job in grid.jobs}
        self._metrics = metrics_of(grid.jobs)
        self._states: dict[str, tuple[str, int | None, str]] = {}

    def introduce(self, console: Console) -> None:
        """Say what is about to run."""
        grid = self.grid
        shape = " x ".join(f"{len(values)} {key}" for key, values in grid.axes.items())
        equal = f", {grid.equal} more are equal to one of them" if grid.equal else ""
        console.print(f"sweep       {grid.sweep_dir}", markup=False)
        console.print(f"runs        {len(grid.jobs)}: {shape}{equal}", markup=False)
        failed = sum(read_failure(job.run_dir) is not None for job in grid.jobs)
        done = sum(self._is_done(job) for job in grid.jobs) - failed
        for word, count in (("done", done), ("failed", failed)):
            if count:
                console.print(f"{word:<12}{count}, not run again")

    def print_commands(self) -> None:
        """Print the command lines of the runs."""
        for job in self.grid.jobs:
            lines = [f"vqtrain {shlex.join(words)}\n" for words in self.commands_of(job)]
            sys.stdout.write("".join(lines) or f"# {job.name} is not run again\n")

    def commands_of(self, job: SweepJob) -> list[list[str]]:
        """Return the command lines of a run that are still to run."""
        if self._is_done(job):
            return []
        evaluate = evaluate_command(job, images=self._images, metrics=self._metrics)
        if _has_trained(job):
            return [evaluate]
        return [train_command(job, self.grid.sweep_dir.resolve().name), evaluate]

    def begin(self, job: SweepJob) -> list[list[str]]:
        """Clear away what an interrupted evaluation has left, and return ``commands_of``."""
        commands = self.commands_of(job)
        if commands:
            shutil.rmtree(job.evaluation, ignore_errors=True)
        return commands

    def screen(self, console: Console, waiting: Sequence[str]) -> SweepScreen:
        """Make the screen for runs that are yet to run."""
        return SweepScreen(
            jobs=self.grid.jobs,
            waiting=waiting,
            logs=self.grid.sweep_dir / LOGS,
            console=console,
            best=str(self.grid.jobs[0].config["metrics"]["best"]),
        )

    def end(self, name: str, end: Ended, screen: SweepScreen) -> None:
        """Note how a run has ended, and write the results so far."""
        job = self._jobs[name]
        if 0 < end.code < FIRST_SIGNAL:
            write_failure(job.run_dir, code=end.code, reason=end.reason)
        elif end.code == 0 and not _has_trained(job):
            reason = "trainer.max_time is over; the same command goes on"
            self._states[name] = results.INTERRUPTED, 0, reason
            shutil.rmtree(job.evaluation, ignore_errors=True)
        elif end.code:
            self._states[name] = results.INTERRUPTED, end.code, end.reason
        running = dict.fromkeys(screen.running, (results.RUNNING, None, ""))
        result = self._write({**running, **self._states})
        found = next(each for each in result.jobs if each.name == name)
        screen.ended(name, found.state, found.metrics, found.reason)

    def conclude(self, console: Console) -> SweepResult:
        """Write all results, and show them."""
        begun = {
            job.name: (results.INTERRUPTED, None, "it goes on with the next call")
            for job in self.grid.jobs
            if run_directory.last_checkpoint(job.run_dir) is not None
        }
        result = self._write({**begun, **self._states})
        folder = self.grid.sweep_dir
        plot.save_plot(result, folder)
        where = page.write(folder)
        tables.show(result, console)
        console.print(f"{'runs':<12}{tables.tally(result.jobs)}", markup=False)
        console.print(f"{'written':<12}{where}", markup=False)
        beside = [plot.FILE, tables.CSV_FILE, tables.PARQUET_FILE, results.FILE]
        there = ", ".join(name for name in beside if (folder / name).exists())
        console.print(f"{'':<12}beside it: {there}", markup=False)
        return result

    def _write(self, states: Mapping[str, tuple[str, int | None, str]]) -> SweepResult:
        grid = self.grid
        result = results.collect(
            grid.jobs,
            command=shareable(self._typed),
            axes=grid.axes,
            sweep_dir=grid.sweep_dir,
            states=states,
        )
        results.save(result, grid.sweep_dir)
        tables.save_tables(result, grid.sweep_dir)
        return result

    def _is_done(self, job: SweepJob) -> bool:
        if read_failure(job.run_dir) is not None:
            return True
        return _has_trained(job) and results.read_evaluation(job.evaluation) is not None


def _has_trained(job: SweepJob) -> bool:
    last = run_directory.last_checkpoint(job.run_dir)
    return last is not None and not run_directory.is_unfinished(job.run_dir)
