"""All runs of a sweep on one screen: a table on a terminal, otherwise lines."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vqtrain.sweeps.job import SweepJob

# Seconds between two reads of the runs' files, and between two lines without a terminal.
LOOK_S, LINE_S = 1.0, 60.0
MAX_ROWS = 20
BAR = 20


@final
class Follower:
    """Reads the metrics that a run has added since the last read.

    Args:
        run_dir: Its run directory, which need not exist yet.

    Attributes:
        values: The newest value of each metric, and ``step``.
    """

    def __init__(self, run_dir: Path) -> None:
        self._file, self._read = run_dir / "metrics.jsonl", 0
        self.values: dict[str, Any] = {}

    def look(self) -> None:
        """Read new lines; all lines if the file has become shorter, as after a resume."""
        try:
            with self._file.open("rb") as file:
                if file.seek(0, 2) < self._read:
                    self._read = 0
                file.seek(self._read)
                new = file.read()
        except OSError:
            return
        whole, newline, _ = new.rpartition(b"\n")
        self._read += len(whole + newline)
        for line in whole.splitlines():
            # A line may be damaged, or begin in its middle: the file became shorter, then longer.
            with suppress(ValueError, TypeError):
                self.values |= json.loads(line)

    @property
    def step(self) -> int:
        """The newest logged step."""
        return int(self.values.get("step", 0))


@final
class SweepScreen:
    """Shows the progress of the runs.

    Args:
        jobs: All runs of the sweep.
        waiting: Names of those that are still to run.
        logs: Folder of their logs.
        console: The console.
        best: The validation metric to show.
    """

    def __init__(
        self,
        *,
        jobs: Sequence[SweepJob],
        waiting: Sequence[str],
        logs: Path,
        console: Console,
        best: str,
    ) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._waiting, self._running = dict.fromkeys(waiting), dict[str, Follower]()
        self._done = len(jobs) - len(waiting)
        self._failed = 0
        self._logs, self._console, self._best = logs, console, best
        self._began, self._looked = time.monotonic(), 0.0
        self._told = self._began
        self._stamps = {name: self._stamp(name) for name in waiting}
        self._steps_done = 0
        self._first = {name: _step_of(self._jobs[name].run_dir) for name in waiting}
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Return a context in which the runs are shown."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=2, transient=True) as self._live:
            yield
        self._live = None

    def tick(self) -> None:
        """Read the runs' files, if it is time."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        for name in [name for name in self._waiting if self._has_begun(name)]:
            del self._waiting[name]
            self._running[name] = Follower(self._jobs[name].run_dir)
            self._running[name].look()
        for follower in self._running.values():
            follower.look()
        if self._live is not None:
            self._live.update(self._table())
        elif now - self._told > LINE_S:
            self._told = now
            self._console.print(self._summary(), markup=False)

    @property
    def running(self) -> list[str]:
        """The runs that were in progress at the last read."""
        return list(self._running)

    def ended(self, name: str, state: str, figures: Mapping[str, float], reason: str) -> None:
        """Say that a run has ended."""
        self._waiting.pop(name, None)
        follower = self._running.pop(name, None)
        if follower is not None:
            follower.look()
            self._steps_done += follower.step - self._first[name]
        self._done += 1
        self._failed += not figures
        what = ", ".join(f"{key} {value:.4f}" for key, value in figures.items()) or reason
        self._console.print(f"{self._done}/{len(self._jobs)} {name} {state}: {what}", markup=False)

    def _has_begun(self, name: str) -> bool:
        return self._stamp(name) != self._stamps[name]

    def _stamp(self, name: str) -> int | None:
        try:
            return (self._logs / f"{name}.log").stat().st_mtime_ns
        except OSError:
            return None

    def _summary(self) -> str:
        words = [f"{self._done} of {len(self._jobs)} done"]
        words += [f"{self._failed} without results"] if self._failed else []
        words += [f"{len(self._running)} running"] if self._running else []
        words += [f"{len(self._waiting)} waiting"] if self._waiting else []
        left = self._seconds_left()
        if left is not None:
            hours, rest = divmod(round(left), 3600)
            words.append(f"about {hours}:{rest // 60:02}:{rest % 60:02} left")
        return ", ".join(words)

    def _seconds_left(self) -> float | None:
        """Estimate from the steps done in this call and those left; None if unknown."""
        steps = {name: follower.step for name, follower in self._running.items()}
        done = self._steps_done + sum(step - self._first[name] for name, step in steps.items())
        left = sum(
            self._jobs[name].max_steps - steps.get(name, self._first[name])
            for name in (*self._waiting, *steps)
        )
        if done <= 0 or left <= 0:
            return None
        return (time.monotonic() - self._began) / done * left

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for head in ("run", "", "step", f"val/{self._best}", "usage"):
            table.add_column(head, no_wrap=True, justify="right" if head == "step" else "left")
        for name, follower in list(self._running.items())[:MAX_ROWS]:
            total = self._jobs[name].max_steps
            filled = math.floor(BAR * min(1.0, follower.step / total))
            table.add_row(
                name,
                "#" * filled + "." * (BAR - filled),
                f"{follower.step}/{total}",
                _figure(follower.values.get(f"val/{self._best}")),
                _figure(follower.values.get("train/codebook/usage")),
            )
        rest = len(self._running) - MAX_ROWS
        more = [Text(f"and {rest} more")] if rest > 0 else []
        return Group(table, *more, Text(self._summary()))


def _figure(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else ""


def _step_of(run_dir: Path) -> int:
    follower = Follower(run_dir)
    follower.look()
    return follower.step
