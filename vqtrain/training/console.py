"""The console of a run: a progress bar or plain lines, and the same in ``log.txt``."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from vqtrain import distributed
from vqtrain.training.trained import RunData

# Above this share of the time that is spent waiting for data there is a hint.
MUCH_WAITING = 0.1

# After so long without a line, the pace is shown: the first line of metrics may be far away.
SILENCE_S = 30.0

# Too many for the console; metrics.jsonl has them.
FOR_EXPERTS = {
    "train/codebook/distance",
    "train/codebook/divergence",
    "train/codebook/encoder_gradient",
    "train/codebook/codebook_entropy",
    "train/codebook/per_sample_entropy",
    "train/codebook/restarts",
    "train/codebook/temperature",
    "train/codebook/top1_share",
    "val/codebook/top1_share",
    "train/adversarial/reconstruction_gradient",
    "train/adversarial/gradient",
    "train/adversarial/ratio",
    "train/discriminator/logits_real",
    "train/discriminator/logits_fake",
    "train/discriminator/gradient_norm",
    "train/discriminator/learning_rate",
}


@final
class RunConsole:
    """Shows progress: as a bar on a terminal, else as plain lines.

    Args:
        log: File that gets every line.
        max_steps: Length of the run.
        data: The data of the run, which knows how long it was waited for.
        is_main: Whether this is the process that prints; the others are silent.
    """

    def __init__(self, *, log: Path, max_steps: int, data: RunData, is_main: bool) -> None:
        self.log_file, self.max_steps, self.data = log, max_steps, data
        self.is_main = is_main
        self.terminal = Console(highlight=False, soft_wrap=True, quiet=not self.is_main)
        self.bar: Progress | None = None
        # Durations are read from log.txt: its time goes on evenly if the system's clock is set.
        self.clock_began = time.time() - time.monotonic()
        self.batch_began = 0.0
        self.busy_s, self.images = 0.0, 0
        self.has_shown, self.has_hinted, self.has_shown_pace = False, False, False
        self.began: tuple[int, float] | None = None  # the step, and when

    def line(self, text: str, *, log_only: bool = False) -> None:
        """Print one line, and append it to ``log.txt``."""
        if not log_only:
            self.terminal.print(text, markup=False)
        if self.is_main:
            # Names of files need not be text.
            with self.log_file.open("a", encoding="utf-8", errors="backslashreplace") as file:
                now = time.localtime(self.clock_began + time.monotonic())
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S', now)} {text}\n")

    def start(self, step: int) -> None:
        """Start the clock, and on a terminal the bar, at a step."""
        self.began = step, time.monotonic()
        if self.terminal.is_terminal:
            self.bar = Progress(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=None),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=self.terminal,
            )
            self.bar.add_task("", total=self.max_steps, completed=step)
            self.bar.start()

    def begin_batch(self) -> None:
        """Note when a batch begins."""
        self.batch_began = time.monotonic()

    def end_batch(self, step: int, *, images: int) -> None:
        """Note how long a batch of this process took, and show the step on the bar."""
        self.busy_s += time.monotonic() - self.batch_began
        self.images += images * distributed.world_size()
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=step)
        elif not self.has_shown and not self.has_shown_pace:
            self._show_pace(step)

    def show_compiling(self, step: int, seconds: float) -> None:
        """Say how long torch compiled, if it did."""
        if seconds > 0:
            self.line(f"step {step}/{self.max_steps}  compiled for {seconds:.1f} s")

    def _show_pace(self, step: int) -> None:
        """Show how long a step and the rest take, once the run has been silent for long."""
        left_s = self.seconds_left(step)
        if self.began is None or left_s is None or time.monotonic() - self.began[1] < SILENCE_S:
            return
        self.has_shown_pace = True
        pace = left_s / (self.max_steps - step)
        self.line(f"step {step}/{self.max_steps}  {pace:.1f} s a step  {duration(left_s)} left")

    def show_training(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Show a line of training metrics with the speed since the last one, and return that."""
        waited_s = self.data.take_waited_s()
        passed = waited_s + self.busy_s
        waiting = waited_s / passed
        left_s = self.seconds_left(step)
        speed = {
            "speed/images_per_second": self.images / passed,
            "speed/waiting": waiting,
            **({} if left_s is None else {"speed/seconds_left": left_s}),
        }
        words = [
            *describe(values, "train/"),
            f"{self.images / passed:.0f} {self.data.noun}s/s",
            f"waiting {waiting:.0%}",
        ]
        self.busy_s, self.images = 0.0, 0
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], description="  ".join(words))
        words += [] if left_s is None else [f"{duration(left_s)} left"]
        text = f"step {step}/{self.max_steps}  {'  '.join(words)}"
        self.line(text, log_only=self.bar is not None)
        # Starting up takes most of the first line's time.
        is_first, self.has_shown = not self.has_shown, True
        remedy = self.data.remedy_for_waiting
        is_much = waiting > MUCH_WAITING and remedy is not None
        if is_much and not is_first and not self.has_hinted:
            self.has_hinted = True
            self.line(f"{waiting:.0%} of the time went into waiting for data: {remedy}")
        return speed

    def seconds_left(self, step: int) -> float | None:
        """Return how long the rest takes at the pace so far, or None if there is no rest."""
        if self.began is None or not self.began[0] < step < self.max_steps:
            return None
        first, began = self.began
        pace = (time.monotonic() - began) / (step - first)
        return pace * (self.max_steps - step)

    def show_validation(self, step: int, values: Mapping[str, float]) -> None:
        """Show a line of validation metrics."""
        self.line(
            f"step {step}/{self.max_steps}  validation: {'  '.join(describe(values, 'val/'))}"
        )

    def close(self) -> None:
        """Stop the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def table(self, title: str, values: Mapping[str, str]) -> None:
        """Show names and values as a table, in ``log.txt`` as lines."""
        table = Table("", Column(overflow="fold"), title=title, title_justify="left")
        table.show_header = False
        for name, value in values.items():
            table.add_row(name, value)
            self.line(f"{name}: {value}", log_only=True)
        self.terminal.print(table)


def describe(values: Mapping[str, float], prefix: str) -> list[str]:
    """Shorten the names of metrics, and leave out those for experts."""
    words = []
    for name, value in values.items():
        if name in FOR_EXPERTS or (name == "train/skipped_steps" and not value):
            continue
        short = name.removeprefix(prefix).removeprefix("generator/").removeprefix("codebook/")
        words.append(f"{short.replace('_', ' ').replace('/', ' ')} {number(name, value)}")
    return words


def duration(seconds: float) -> str:
    """Write a duration as hours, minutes and seconds, also beyond a day.

    Example:
        >>> duration(105_427.6), duration(61.0)
        ('29:17:07', '0:01:01')
    """
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def number(name: str, value: float) -> str:
    """Format a metric with a useful number of digits."""
    if name.endswith("learning_rate"):
        return f"{value:.1e}"
    if name == "train/epoch":
        return f"{value:.2f}"
    if name.endswith("perplexity"):
        return f"{value:.0f}"
    return f"{value:.4f}"
