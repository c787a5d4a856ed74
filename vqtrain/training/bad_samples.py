"""``bad_samples.jsonl``: samples that cannot be read, and whether they are too many."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import final

import torch

from vqtrain import distributed
from vqtrain.data.faults import Fault
from vqtrain.data.sources.pipes import Stream
from vqtrain.training.data_module import TrainingData
from vqtrain.training.trained import RunBatch

FILE = "bad_samples.jsonl"

# Of images read in sequence, whose number is unknown, the share is one of at least so many.
LEAST_TOTAL = 1_000


@final
class BadSamples:
    """Lists every skipped sample once, and counts those of training.

    A line holds ``step`` (0 if the sample was found before the run), ``split`` (train or val),
    ``shard``, ``key`` and ``reason``. The first process writes; the others send it what they found.

    Args:
        path: The file; what it holds is taken as found already.
        data: The data of the run.
        say: Prints a line for the user.

    Attributes:
        count: Samples of training that could not be read so far, on the first process.
        too_many: Whether they are more than ``data.max_bad_fraction`` allows, on all processes.
    """

    def __init__(self, *, path: Path, data: TrainingData, say: Callable[[str], None]) -> None:
        self.path, self.data, self.say = path, data, say
        self.found: list[tuple[str, Fault]] = []
        self.known: set[tuple[str, Fault]] = set()
        self.count = 0
        self.too_many = False

    @property
    def limit(self) -> float:
        """How many may be bad: the allowed share plus one standard deviation of the count.

        One is always allowed, unless the share is 0.
        """
        expected = self.data.settings.max_bad_fraction * self.total
        return max(1.0, expected + math.sqrt(expected)) if expected else 0.0

    @property
    def total(self) -> int:
        """Images that the allowed share refers to; of a stream, those seen so far."""
        training = self.data.training
        if isinstance(training, Stream):
            return max(LEAST_TOTAL, self.data.samples_at(self.data.consumed))
        return len(training)

    @property
    def verdict(self) -> str:
        """Say that they are too many."""
        return (
            f"{self.count} of {self.total} {self.data.noun}s cannot be read, more than "
            f"data.max_bad_fraction={self.data.settings.max_bad_fraction} allows; "
            f"{self.path} lists them. Repair them or raise it"
        )

    def begin(self) -> None:
        """Read what earlier calls have listed, and list what indexing the images has found."""
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                step, split = entry.pop("step"), entry.pop("split")
                self.known.add((split, Fault(**entry)))
                self.count += split == "train" and step > 0
        training, validation = self.data.training.faults, self.data.validation.faults
        self.found += [("train", fault) for fault in training]
        self.found += [("val", fault) for fault in validation if fault not in training]
        self.write(self.found, step=0)
        self.found = []

    def note(self, split: str, batch: RunBatch) -> None:
        """Note the samples that were skipped in a batch of ``train`` or ``val``."""
        self.found += [(split, fault) for fault in batch.faults]

    def share(self, step: int, device: torch.device) -> None:
        """Collect what all processes have found; collective."""
        found = distributed.all_gather_lists(self.found)
        self.found = []
        if distributed.rank() == 0:
            self.write(found, step)
        is_above = torch.tensor([self.count > self.limit], device=device).long()
        self.too_many = bool(distributed.all_max(is_above))

    def write(self, found: list[tuple[str, Fault]], step: int) -> None:
        """Append what is new to the file."""
        new = [entry for entry in dict.fromkeys(found) if entry not in self.known]
        if not new:
            return
        with self.path.open("a", encoding="utf-8") as file:
            for split, fault in new:
                line = {"step": step, "split": split, **asdict(fault)}
                file.write(json.dumps(line) + "\n")
        if not self.known or step == 0:
            _, first = new[0]
            more = f", and {len(new) - 1} more" if len(new) > 1 else ""
            name = f"{first.key!r} in {first.shard}" if first.key else first.shard
            self.say(f"skipped {name}: {first.reason}{more}; all are listed in {self.path}")
        self.known.update(new)
        if step > 0:
            self.count += sum(split == "train" for split, _ in new)
