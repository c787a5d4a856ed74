"""``vqtrain sweep``: one run for each combination of values, one table, one picture."""

import difflib
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from filelock import FileLock, Timeout
from rich.console import Console

from vqtrain.app.compose import CommandLine, describe_keys, read_command_line
from vqtrain.app.grid import difference, read_grid
from vqtrain.app.keys import describe, read_keys
from vqtrain.app.output import ending_in_order, expand
from vqtrain.app.ranks import WIDTH
from vqtrain.app.sweep_commands import (
    check_keys,
    evaluate_command,
    make_launcher,
    metrics_of,
    train_command,
)
from vqtrain.build import bind, unknown
from vqtrain.data.servers import shareable
from vqtrain.errors import CheckpointError, ConfigError, Interrupted, VqtrainError, require
from vqtrain.launchers.base import Ended, Job, find
from vqtrain.launchers.base import words as launcher_words
from vqtrain.launchers.local import Local
from vqtrain.reports import page
from vqtrain.sweeps import plot, results, tables
from vqtrain.sweeps.grid import Grid, refuse_others
from vqtrain.sweeps.job import LOGS, SweepJob, read_failure, write_failure
from vqtrain.sweeps.results import SweepResult
from vqtrain.sweeps.screen import SweepScreen
from vqtrain.training import run_directory

COMMAND = "vqtrain sweep"
# Codes from here on are those of signals: the run goes on with the next call.
FIRST_SIGNAL = 128
KEYS: dict[str, tuple[object, str]] = {
    "sweep_dir": (None, "folder of the sweep, continued if it exists; null is sweeps/NAME"),
    "images": (None, "what to evaluate on; null is what each run has validated on"),
    "launcher": ("local", f"{', '.join(launcher_words())}: where the runs are"),
    "devices": (None, "devices of this machine to use; null is all GPUs, or the CPU for one run"),
    "launcher_options": ({}, "what the launcher takes, such as {partition: gpu, timeout_min: 600}"),
}

USAGE = """usage: {command} key=a,b,c [key=value ...] [sweep_dir=DIR]

Trains one tokenizer for each combination of the values, each as a `vqtrain train` of its own, and
evaluates it. All runs are checked before the first one starts, equal ones are one, and one that
fails does not stop the others. DIR then holds sweep.html, sweep.png, sweep.csv, sweep.parquet,
sweep.json, and the run directories in jobs/. The same command goes on with what is missing.

keys of the sweep:
{own}

All others are those of vqtrain train. Any but a path may have several values: 1,2,3 or
'range(0,4)', and of a group 'glob(*)'.

{keys}

options:
  --config-dir DIR   a folder with configs of your own, laid out as vqtrain's configs/
  --print-config     show the command lines and stop
  --help             show this

examples:
  {command} experiment=demo codebook=ema,fsq codebook.size=64,256,1024 seed=0,1
  {command} data.train=shards codebook=lfq codebook.size=1024,4096 trainer.devices=4 \\
    sweep_dir=sizes launcher=slurm 'launcher_options={{partition: gpu, timeout_min: 600}}'
"""


def main(words: Sequence[str]) -> int:
    """Sweep, or show the help or the command lines."""
    own = [word for word in words if word.partition("=")[0] in KEYS]
    command_line = read_command_line([word for word in words if word not in own])
    for word in command_line.overrides:
        key = word.partition("=")[0]
        if difflib.get_close_matches(key, KEYS, cutoff=0.8):
            raise ConfigError(unknown("key", key, KEYS))
    values = read_keys(COMMAND, own, KEYS)
    assert values is not None, "options are among the other words"
    if command_line.show_help:
        keys = describe_keys("train", replace(command_line, paths={}, overrides=[]))
        sys.stdout.write(USAGE.format(command=COMMAND, own=describe(KEYS), keys=keys))
        return 0
    images = [word for word in own if word.startswith("images=")] if values.pop("images") else []
    values |= {"typed": shlex.join(["vqtrain", "sweep", *words]), "images": images[-1:]}
    with ending_in_order():
        return bind(run, {**values, "command_line": command_line}, where=COMMAND)


def run(
    *,
    typed: str,
    command_line: CommandLine,
    images: list[str],
    sweep_dir: str | None,
    launcher: str,
    devices: int | None,
    launcher_options: dict[str, object],
) -> int:
    """Sweep, and say what came of it; the arguments are those of ``KEYS``."""
    check_keys(launcher, devices, launcher_options)
    require(sweep_dir != "", "sweep_dir must name a folder, got nothing")
    folder = expand(sweep_dir) if sweep_dir else None
    require(folder is None or not folder.is_file(), f"sweep_dir={sweep_dir} is a file")
    grid = read_grid(command_line, folder, is_here=find(launcher) is Local)
    refuse_others(grid, difference)
    sweep = Sweep(grid=grid, typed=typed, images=images)
    if command_line.print_config:
        for job in grid.jobs:
            commands = sweep.commands_of(job)
            lines = [f"vqtrain {shlex.join(words)}\n" for words in commands]
            sys.stdout.write("".join(lines) or f"# {job.name} is not run again\n")
        return 0
    found, environment = make_launcher(
        launcher, devices=devices, options=launcher_options, jobs=grid.jobs
    )
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    try:
        grid.sweep_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {grid.sweep_dir}: {error.strerror}") from error
    try:
        with FileLock(grid.sweep_dir / ".lock", blocking=False):
            sweep.introduce(console)
            try:
                waiting = [
                    Job(
                        name=job.name,
                        commands=commands,
                        devices=job.devices,
                        environment=environment,
                    )
                    for job in grid.jobs
                    if (commands := sweep.begin(job))
                ]
                screen = sweep.screen(console, [job.name for job in waiting])
                with screen.shown():
                    found.launch(
                        waiting,
                        logs=grid.sweep_dir / LOGS,
                        tick=screen.tick,
                        done=lambda job, end: sweep.end(job.name, end, screen),
                    )
            except (KeyboardInterrupt, Interrupted):
                console.print("stopped; the same command goes on with what is missing")
                raise
            finally:
                result = sweep.conclude(console)
    except Timeout as error:
        raise CheckpointError(f"{grid.sweep_dir} is in use by another sweep") from error
    except OSError as error:
        failure = VqtrainError(f"cannot write {grid.sweep_dir}: {error.strerror or error}")
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
        self._grid, self._typed, self._images = grid, typed, images
        self._jobs = {job.name: job for job in grid.jobs}
        self._metrics = metrics_of(grid.jobs)
        self._states: dict[str, tuple[str, int | None, str]] = {}

    def introduce(self, console: Console) -> None:
        """Say what is about to run."""
        grid = self._grid
        shape = " x ".join(f"{len(values)} {key}" for key, values in grid.axes.items())
        equal = f", {grid.equal} more are equal to one of them" if grid.equal else ""
        console.print(f"sweep       {grid.sweep_dir}", markup=False)
        console.print(f"runs        {len(grid.jobs)}: {shape}{equal}", markup=False)
        failed = sum(read_failure(job.run_dir) is not None for job in grid.jobs)
        done = sum(self._is_done(job) for job in grid.jobs) - failed
        for word, count in (("done", done), ("failed", failed)):
            if count:
                console.print(f"{word:<12}{count}, not run again")

    def commands_of(self, job: SweepJob) -> list[list[str]]:
        """Return the command lines of a run that are still to run."""
        if self._is_done(job):
            return []
        evaluate = evaluate_command(job, images=self._images, metrics=self._metrics)
        if _has_trained(job):
            return [evaluate]
        return [train_command(job, self._grid.sweep_dir.resolve().name), evaluate]

    def begin(self, job: SweepJob) -> list[list[str]]:
        """Clear away what an interrupted evaluation has left, and return ``commands_of``."""
        commands = self.commands_of(job)
        if commands:
            shutil.rmtree(job.evaluation, ignore_errors=True)
        return commands

    def screen(self, console: Console, waiting: Sequence[str]) -> SweepScreen:
        """Make the screen for runs that are yet to run."""
        return SweepScreen(
            jobs=self._grid.jobs,
            waiting=waiting,
            logs=self._grid.sweep_dir / LOGS,
            console=console,
            best=str(self._grid.jobs[0].config["metrics"]["best"]),
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
            for job in self._grid.jobs
            if run_directory.last_checkpoint(job.run_dir) is not None
        }
        result = self._write({**begun, **self._states})
        folder = self._grid.sweep_dir
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
        grid = self._grid
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
