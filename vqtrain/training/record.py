"""``metrics.jsonl``: one line for each logged step.

Nothing in it depends on the clock, so that an interrupted and an uninterrupted run write equal
files. Speeds are on the console, in ``log.txt`` and in the tracker.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import final

from vqtrain import distributed
from vqtrain.data.cache import write_whole
from vqtrain.training.console import RunConsole
from vqtrain.training.trackers.base import Tracker
from vqtrain.training.trained import Trained, Validator


@final
class Record:
    """Writes the metrics of a step to ``metrics.jsonl``, to the console and to a tracker.

    Args:
        path: The file.
        console: Where people see them.
        tracker: Where else they go, or None.
    """

    def __init__(self, *, path: Path, console: RunConsole, tracker: Tracker | None) -> None:
        self.path, self.console, self.tracker = path, console, tracker

    def write(self, module: Trained, validation: Validator) -> None:
        """Write a line if this step is logged or was validated; collective."""
        values: dict[str, float] = {}
        speed: dict[str, float] = {}
        if module.is_logged:
            epochs = self.console.data.epochs
            values |= {} if epochs is None else {"train/epoch": epochs}
            values |= module.logged_metrics()
            speed = self.console.show_training(module.step, values)
            hint = module.hint(values)
            if hint is not None:
                self.console.line(hint)
        if validation.results:
            values |= validation.results
            self.console.show_validation(module.step, validation.results)
            if validation.hint is not None:
                self.console.line(validation.hint)
        if values and distributed.rank() == 0:
            append_line(self.path, module.step, values)
        if values and self.tracker is not None:
            self.tracker.log(module.step, values | speed)
            images = validation.picture_at(module.step)
            if (
                validation.results and images is not None and images.is_file()
            ):  # of samples that are images
                self.tracker.image(module.step, images)


def append_line(path: Path, step: int, values: Mapping[str, float]) -> None:
    """Append one step; a value that is not finite becomes null."""
    plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **plain}) + "\n")


def cut_back(path: Path, step: int) -> None:
    """Remove every line after a step, and a last line that is incomplete.

    A damaged line stays: its readers count it.
    """
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith(b"\n") and not is_after(line, step)]
    write_whole(path, b"".join(kept))


def is_after(line: bytes, step: int) -> bool:
    """Say whether a line is of a later step."""
    try:
        return bool(json.loads(line)["step"] > step)
    except (ValueError, TypeError, KeyError):
        return False
