"""Profiles a few steps of a run: a trace for Perfetto, and where the time went."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.profiler import profile, record_function

from vqtrain.ops.profiling import (
    STEP,
    Call,
    describe,
    describe_operations,
    marked,
    profiler,
    time_by_part,
)
from vqtrain.training.trained import Trained

# Steps that are profiled, and those before them, where the run is long enough.
PROFILED, BEFORE = 6, 10


@final
@dataclass(kw_only=True, eq=False, repr=False)
class Profile(Callback):
    """Profiles a few steps of a run after its first ones, and writes what it found.

    These are ``PROFILED`` steps after ``BEFORE`` others; of a short run earlier and fewer ones. It
    is the last of the trainer's callbacks, so that a step ends with what all others do.

    Args:
        folder: Where ``trace.json.gz`` and ``summary.txt`` are written.
        calls: What is marked besides the calls of the training step.
        say: Prints a line.
    """

    folder: Path
    calls: Sequence[Call] = ()
    say: Callable[[str], None]
    steps: range = field(default=range(0), init=False)
    record: profile | None = field(default=None, init=False)
    marks: ExitStack = field(default_factory=ExitStack, init=False)
    step: ExitStack = field(default_factory=ExitStack, init=False)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the steps."""
        del trainer
        assert isinstance(pl_module, Trained)
        left = pl_module.settings.max_steps - pl_module.step
        count = max(1, min(PROFILED, left // 2))
        first = pl_module.step + min(BEFORE, left - count)
        self.steps = range(first, first + count)
        self.begin_step(pl_module)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """End a step, and begin the next one."""
        del trainer, outputs, batch, batch_idx
        assert isinstance(pl_module, Trained)
        if pl_module.step_has_ended:
            self.end_step(pl_module)
            self.begin_step(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what there is of a run that ends early."""
        del trainer
        assert isinstance(pl_module, Trained)
        self.conclude(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop the profiler, which a process has only one of."""
        del trainer, pl_module, exception
        if self.record is not None:
            self.record.stop()
            self.record = None
        self.marks.close()

    def begin_step(self, module: Trained) -> None:
        """Begin a range if the next step is profiled, and before the first one the profile."""
        if module.step not in self.steps:
            return
        if self.record is None:
            self.marks.enter_context(marked([*module.calls(), *self.calls]))
            self.record = profiler()
            wait_for(module.device)
            self.record.start()
        self.step.enter_context(record_function(STEP))

    def end_step(self, module: Trained) -> None:
        """End the range of a step, and after the last one the profile."""
        if module.step >= self.steps.stop:
            self.conclude(module)
        self.step.close()

    def conclude(self, module: Trained) -> None:
        """End the profile, and write it."""
        if self.record is None:
            return
        record, self.record = self.record, None
        wait_for(module.device)
        self.step.close()
        record.stop()
        self.marks.close()
        self.folder.mkdir(exist_ok=True)
        trace, summary = self.folder / "trace.json.gz", self.folder / "summary.txt"
        record.export_chrome_trace(str(trace))
        lines = [
            f"steps {self.steps.start} to {module.step - 1}, on {module.device.type}",
            *describe(time_by_part(record)),
            "",
            *describe_operations(record),
        ]
        summary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for line in lines:
            self.say(line)
        self.say(f"profile: {trace} is for https://ui.perfetto.dev, {summary} has these tables")


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
