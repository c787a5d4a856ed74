"""From the words of ``vqtrain sweep`` to trained and evaluated tokenizers."""

import shlex
import sys
from collections.abc import Mapping, Sequence

from filelock import FileLock, Timeout
from rich.console import Console

from vqtrain.app.parts.compose import CommandLine
from vqtrain.app.parts.grid import difference, read_grid
from vqtrain.app.parts.output import ending_in_order, folder_of
from vqtrain.app.parts.probe_request import read_request, refuse_changed
from vqtrain.build import resolve
from vqtrain.data.remote.urls import shareable
from vqtrain.errors import CheckpointError, ConfigError, Interrupted, as_failure, require
from vqtrain.launchers.base import Ended, Job, Launcher
from vqtrain.launchers.local import Local
from vqtrain.launchers.parts.ranks import WIDTH
from vqtrain.reports import page
from vqtrain.sweeps import plot, results, tables
from vqtrain.sweeps.commands import check_keys, make_launcher
from vqtrain.sweeps.grid import refuse_others
from vqtrain.sweeps.job import LOGS, SweepJob, read_failure
from vqtrain.sweeps.progress import Sweep
from vqtrain.sweeps.results import SweepResult
from vqtrain.sweeps.screen import SweepScreen
from vqtrain.training import run_directory


def sweep(
    command_line: CommandLine,
    words: Sequence[str],
    *,
    images: str | list[str | dict[str, object]] | None,
    sweep_dir: str | None,
    probe: str | list[str] | None,
    probe_options: Mapping[str, object],
    launcher: str,
    devices: int | None,
    launcher_options: Mapping[str, object],
) -> int:
    """Check all runs before the first one starts, then run what is to be run.

    Args:
        command_line: What was typed for ``vqtrain train``.
        words: All that was typed.
        images: Value of the key, as are those below.
        sweep_dir: Folder of the sweep, or None.
        probe: What is to be probed of each run, or None.
        probe_options: Keys of the probe.
        launcher: A kind word.
        devices: Devices of this machine to use, or None.
        launcher_options: Arguments of the launcher.
    """
    image_words = [word for word in words if images and word.startswith("images=")]
    check_keys(launcher, devices, launcher_options)
    request = read_request(probe, probe_options)
    folder = None if sweep_dir is None else folder_of(sweep_dir, "sweep_dir")
    require(folder is None or not folder.is_file(), f"sweep_dir={sweep_dir} is a file")
    grid = read_grid(command_line, folder, is_here=resolve("launcher", launcher) is Local)
    refuse_others(grid, difference)
    if request is not None:
        refuse_changed(request, grid.jobs)
    command = shareable(shlex.join(["vqtrain", "sweep", *words]))
    found = Sweep(
        grid,
        command=command,
        images=image_words[-1:],
        probe=request,
        has_trained=has_trained,
    )
    if command_line.print_config:
        for job in grid.jobs:
            lines = [f"vqtrain {shlex.join(words)}\n" for words in found.commands_of(job)]
            sys.stdout.write("".join(lines) or f"# {job.name} is not run again\n")
        return 0
    runs, environment = make_launcher(
        launcher, devices=devices, options=launcher_options, jobs=grid.jobs
    )
    with ending_in_order():
        return launch_all(found, runs, environment)


def launch_all(sweep: Sweep, launcher: Launcher, environment: Mapping[str, str]) -> int:
    """Run what is to be run, and say what came of it."""
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(highlight=False, soft_wrap=True, width=width)
    folder = sweep.grid.sweep_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire(blocking=False)
    except Timeout as error:
        raise CheckpointError(f"{folder} is in use by another sweep") from error
    except OSError as error:
        raise ConfigError(f"cannot write {folder}: {error.strerror}") from error
    with (
        lock,
        as_failure({OSError: lambda error: f"cannot write {folder}: {error.strerror or error}"}),
    ):
        introduce(sweep, console)
        try:
            commands = {job.name: (job.devices, sweep.begin(job)) for job in sweep.grid.jobs}
            waiting = [
                Job(name=name, commands=words, devices=devices, environment=environment)
                for name, (devices, words) in commands.items()
                if words
            ]
            screen = SweepScreen(
                jobs=sweep.grid.jobs,
                waiting=[job.name for job in waiting],
                logs=folder / LOGS,
                console=console,
                best=str(sweep.grid.jobs[0].config["metrics"]["best"]),
            )

            def end(job: Job, ended: Ended) -> None:
                found = sweep.end(job.name, ended, running=screen.running)
                figures = {**found.metrics, **found.probe} if found.state in results.DONE else {}
                screen.ended(job.name, found.state, figures, found.reason)

            with screen.shown():
                launcher.launch(waiting, logs=folder / LOGS, tick=screen.tick, done=end)
        except (KeyboardInterrupt, Interrupted):
            console.print("stopped: run the same command again to continue")
            raise
        finally:
            result = conclude(sweep, console)
    return 0 if result.is_whole else 1


def introduce(sweep: Sweep, console: Console) -> None:
    """Say what is about to run."""
    grid = sweep.grid
    shape = " x ".join(f"{len(values)} {key}" for key, values in grid.axes.items())
    equal = f", {grid.equal} more are equal to one of them" if grid.equal else ""
    console.print(f"sweep       {grid.sweep_dir}", markup=False)
    console.print(f"runs        {len(grid.jobs)}: {shape}{equal}", markup=False)
    if sweep.not_probed:
        names = ", ".join(sweep.not_probed)
        console.print(f"{'not probed':<12}{names}: a continuous codebook has no ids", markup=False)
    failed = sum(read_failure(job.run_dir) is not None for job in grid.jobs)
    done = sum(map(sweep.is_done, grid.jobs)) - failed
    for word, count in (("done", done), ("failed", failed)):
        if count:
            console.print(f"{word:<12}{count}, not run again")


def conclude(sweep: Sweep, console: Console) -> SweepResult:
    """Write all results and the page, and show them."""
    folder = sweep.grid.sweep_dir
    begun = [job.name for job in sweep.grid.jobs if run_directory.last_checkpoint(job.run_dir)]
    result = sweep.conclude(begun)
    where = page.write(folder)
    tables.show(result, console)
    console.print(f"{'runs':<12}{tables.tally(result.jobs)}", markup=False)
    console.print(f"{'written':<12}{where}", markup=False)
    others = [plot.FILE, tables.CSV_FILE, tables.PARQUET_FILE, results.FILE]
    there = ", ".join(name for name in others if (folder / name).exists())
    console.print(f"{'':<12}and {there}", markup=False)
    return result


def has_trained(job: SweepJob) -> bool:
    """Say whether the training of a run has reached its last step."""
    last = run_directory.last_checkpoint(job.run_dir)
    return last is not None and not run_directory.is_unfinished(job.run_dir)
