"""One run of a sweep: its values, and where its files are."""

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from vqtrain.data.cache import write_whole

JOBS, LOGS = "jobs", "logs"
EVALUATION, PROBE = "evaluation", "probe"
# How a run failed; the sweep runs it again after this file is deleted.
FAILURE = "failed.json"
MAX_NAME = 100
MAX_JOBS = 10_000
# Keys that the sweep sets for each run.
OWN_KEYS = ("run_dir", "resume")
STAMP = "%Y-%m-%d %H:%M:%S"
# The first line that each call of a run writes, perhaps after an incomplete line.
FIRST_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) vqtrain \S+, torch ")


@final
@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """A combination of values.

    Attributes:
        name: Of its folder, such as ``ema_size64_seed0``.
        values: Values of the axes, by their keys.
        config: The whole configuration of the run.
        words: The overrides of its command line, without those that the sweep adds.
        run_dir: Its run directory.
        parameters: Of its tokenizer.
        flops: Of encoding and decoding one image.
        has_ids: Whether it has ids, which a continuous codebook has not.
    """

    name: str
    values: Mapping[str, object]
    config: Mapping[str, Any]
    words: Sequence[str]
    run_dir: Path
    parameters: int
    flops: int
    has_ids: bool

    @property
    def kind(self) -> str:
        """The codebook's kind."""
        return str(self.config["codebook"]["kind"])

    @property
    def devices(self) -> int:
        """Devices that the run needs."""
        return int(self.config["trainer"]["devices"])

    @property
    def max_steps(self) -> int:
        """Steps of the run."""
        return int(self.config["trainer"]["max_steps"])

    @property
    def evaluation(self) -> Path:
        """The folder of its evaluation."""
        return self.run_dir / EVALUATION

    @property
    def probe(self) -> Path:
        """The folder of its probe."""
        return self.run_dir / PROBE


def name_jobs(values: Sequence[Mapping[str, object]], groups: Sequence[str]) -> list[str]:
    """Name jobs by their values; each name is unique and can be a folder.

    Args:
        values: Of each job, by key; all have the same keys.
        groups: Keys whose value alone is enough, such as ``codebook``.

    Example:
        >>> name_jobs([{"codebook": "ema", "codebook.size": 64}], ["codebook"])
        ['ema_size64']
    """
    names: list[str] = []
    for each in values:
        last = [key.rpartition(".")[2] for key in each]
        parts = []
        for key, value in each.items():
            short = key.rpartition(".")[2]
            label = short if last.count(short) == 1 else key.replace(".", "-")
            parts.append(f"{'' if key in groups else label}{value}")
        name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", "_".join(parts)).strip("-.")
        if len(name) > MAX_NAME or not name or name in names:
            digest = hashlib.sha256(json.dumps(each, default=str).encode()).hexdigest()[:8]
            name = f"{name[:MAX_NAME]}_{digest}"
        names.append(name)
    return names


def read_failure(run_dir: Path) -> tuple[int, str] | None:
    """Return the code and the reason of a run that has failed; None if it has not."""
    try:
        known = json.loads((run_dir / FAILURE).read_bytes())
        return int(known["code"]), str(known["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_failure(run_dir: Path, *, code: int, reason: str) -> None:
    """Record that a run has failed, so that it is not run again.

    Raises:
        OSError: If it cannot be written.
    """
    text = json.dumps({"code": code, "reason": reason})
    write_whole(run_dir / FAILURE, f"{text}\n".encode())


def training_seconds(run_dir: Path) -> float | None:
    """Return the training time of a run over all its calls, from the times in its log.

    Each call counts from its first to its last line, without the start of the process.
    """
    try:
        # An incomplete line may end within a character.
        text = (run_dir / "log.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    total, last = 0.0, None
    for line in text.splitlines():
        first = FIRST_LINE.search(line)
        try:
            at = time.mktime(time.strptime(first[1] if first else line[:19], STAMP))
        except ValueError:
            continue
        if first is None and last is not None:
            total += max(0.0, at - last)  # in autumn an hour comes twice
        if first or last is not None:
            last = at
    return None if last is None else total
