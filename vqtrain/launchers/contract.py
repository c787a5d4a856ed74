"""A check of the contract of launchers."""

import tempfile
from pathlib import Path

from vqtrain.errors import require
from vqtrain.launchers.base import Ended, Job, Launcher
from vqtrain.version import __version__


def check(launcher: Launcher) -> None:
    """Check that a launcher runs command lines, writes their logs, and says how each job ended.

    Args:
        launcher: As it is built, for a place where jobs can start at once.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    good = Job(name="good", commands=[["--version"]])
    failing = Job(name="failing", commands=[["no-such-command"], ["--version"]])
    ends: list[tuple[Job, Ended]] = []
    ticks: list[None] = []
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        launcher.launch(
            [failing, good],
            logs=logs,
            tick=lambda: ticks.append(None),
            done=lambda job, end: ends.append((job, end)),
        )
        found = {job.name: end for job, end in ends}
        require(
            sorted(job.name for job, _ in ends) == ["failing", "good"],
            f"done must be called once for each job, it was called for {[j.name for j, _ in ends]}",
        )
        require(found["good"].code == 0, f"a job without fault must end with 0: {found['good']}")
        require(
            found["failing"].code == 2 and "no-such-command" in found["failing"].reason,
            "a job must end with the exit code of the command that failed, and the last line of "
            f"its output: {found['failing']}",
        )
        written = {job.name: _text(logs / f"{job.name}.log") for job in (good, failing)}
        require(__version__ in written["good"], "the output of a job must be in NAME.log")
        require(__version__ not in written["failing"], "a job must stop at a command that fails")
        require(bool(ticks), "tick must be called while jobs run")


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
