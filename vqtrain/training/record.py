"""``metrics.jsonl``: one line a logged step, a function of the run alone.

Nothing in it depends on the clock, so that an interrupted and an unbroken run write equal files.
Speeds are on the screen and in ``log.txt``.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import final

from lightning.pytorch import Trainer

from vqtrain import distributed
from vqtrain.training.callbacks import StepCallback
from vqtrain.training.health import CollapseHint
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.screen import Screen
from vqtrain.training.trackers import Tracker
from vqtrain.training.validation import Validation


@final
class Record(StepCallback):
    """Writes the metrics of a step to ``metrics.jsonl``, to the screen and to a tracker.

    Args:
        path: The file.
        validation: Where validation results come from.
        screen: Where people see them.
        tracker: Where else they go, or None.
    """

    def __init__(
        self, *, path: Path, validation: Validation, screen: Screen, tracker: Tracker | None
    ) -> None:
        self.path, self.validation, self.screen = path, validation, screen
        self.tracker = tracker
        self.collapse = CollapseHint()

    def on_step_end(self, trainer: Trainer, module: TokenizerTraining) -> None:
        """Write a line if this step is logged or was validated."""
        del trainer
        values: dict[str, float] = {}
        if module.step % module.settings.log_every == 0:
            values |= module.window.means()
            values["train/skipped_steps"] = float(module.skipped_steps)
            for name, mover in module.movers_at(module.step - 1).items():
                values[f"train/{name}/learning_rate"] = mover.learning_rate_at(module.step - 1)
            self.screen.show_training(module.step, values)
            hint = self.collapse.of(values, module.tokenizer.vocab_size, module.window.tokens)
            if hint is not None:
                self.screen.line(hint)
        if self.validation.results:
            values |= self.validation.results
            self.screen.show_validation(module.step, self.validation.results)
        if values and distributed.rank() == 0:
            append_line(self.path, module.step, values)
        if values and self.tracker is not None:
            self.tracker.log(module.step, values)
            if self.validation.results:
                self.tracker.picture(module.step, self.validation.picture_at(module.step))


def append_line(path: Path, step: int, values: Mapping[str, float]) -> None:
    """Append one step; values that are not finite become null."""
    plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **plain}) + "\n")


def cut_back(path: Path, step: int) -> None:
    """Drop every line after a step, and a last line that was not written whole."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    kept = [line for line in whole if json.loads(line)["step"] <= step]
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text("".join(kept), encoding="utf-8")
    temporary.replace(path)
