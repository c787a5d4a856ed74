"""What a run directory says of its run, read without Lightning."""

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import yaml
from jaxtyping import Float64

from vqtrain.errors import ConfigError

CONFIG, METRICS, ENVIRONMENT = "config.yaml", "metrics.jsonl", "environment.json"
Value = TypeVar("Value")


@final
@dataclass(frozen=True, kw_only=True)
class Curve:
    """A metric over the steps at which it was logged; NaN where it was not finite."""

    steps: Float64[np.ndarray, " n"]
    values: Float64[np.ndarray, " n"]

    def last(self) -> tuple[int, float] | None:
        """Return the newest step with a number, and that; None if there is none."""
        found = np.flatnonzero(np.isfinite(self.values))
        return None if len(found) == 0 else self._at(int(found[-1]))

    def best(self, *, is_lower_better: bool) -> tuple[int, float] | None:
        """Return the step with the best number, the first of equals; None if there is none."""
        if not np.isfinite(self.values).any():
            return None
        choose = np.nanargmin if is_lower_better else np.nanargmax
        return self._at(int(choose(self.values)))

    def _at(self, place: int) -> tuple[int, float]:
        return int(self.steps[place]), float(self.values[place])


@final
@dataclass(frozen=True, kw_only=True)
class RunResult:
    """A run so far.

    Attributes:
        run_dir: Its directory.
        config: Its configuration.
        metrics: The curve of each metric.
        damaged: Lines of ``metrics.jsonl`` that cannot be read.
        environment: What it was started with, and where; empty if that cannot be read.
    """

    run_dir: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, Curve]
    damaged: int
    environment: Mapping[str, object]

    @property
    def step(self) -> int | None:
        """The last step that was logged."""
        return max((int(curve.steps[-1]) for curve in self.metrics.values()), default=None)

    def setting(self, key: str, kind: type[Value]) -> Value | None:
        """Return the value of a key such as ``data.image_size``; None if it is of another type."""
        value: object = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value if isinstance(value, kind) else None


def is_run(path: Path) -> bool:
    """Say whether a folder is a run directory."""
    return (path / CONFIG).is_file()


def read_run(run_dir: Path) -> RunResult:
    """Read a run directory.

    Raises:
        ConfigError: If the configuration cannot be read.
    """
    config = read_config(run_dir)
    metrics, damaged = read_metrics(run_dir / METRICS)
    return RunResult(
        run_dir=run_dir,
        config=config,
        metrics=metrics,
        damaged=damaged,
        environment=read_environment(run_dir),
    )


def read_config(run_dir: Path) -> dict[str, Any]:
    """Read a run's configuration.

    Raises:
        ConfigError: If it is not there, or no mapping.
    """
    file = run_dir / CONFIG
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"cannot read {file}: it must hold a mapping")
    return config


def read_environment(run_dir: Path) -> dict[str, object]:
    """Read with what a run was started, and where; nothing if that cannot be read."""
    try:
        environment = json.loads((run_dir / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return environment if isinstance(environment, dict) else {}


def commands_of(environment: Mapping[str, object]) -> list[str]:
    """Return the commands of a run, in their order, from its ``environment.json``.

    The oldest files hold the last command alone.
    """
    found = environment.get("commands", environment.get("command"))
    return [str(each) for each in (found if isinstance(found, list) else [found]) if each]


def read_metrics(file: Path) -> tuple[dict[str, Curve], int]:
    """Read every metric of a run, and count the lines that cannot be read.

    A last line that is being written is left out. A file that is not there holds no metric.
    """
    damaged = 0
    steps: dict[str, array[float]] = {}
    values: dict[str, array[float]] = {}
    try:
        lines = file.open(encoding="utf-8", errors="replace")
    except OSError:
        return {}, 0
    with lines:
        for line in lines:
            numbers = _numbers(line)
            damaged += numbers is None and line.endswith("\n")
            for name, step, value in numbers or []:
                steps.setdefault(name, array("d")).append(step)
                values.setdefault(name, array("d")).append(value)
    curves = {
        name: Curve(steps=np.array(steps[name]), values=np.array(values[name])) for name in steps
    }
    return curves, damaged


def _numbers(line: str) -> list[tuple[str, float, float]] | None:
    try:
        row = json.loads(line)
        step = float(row.pop("step"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return [
        (name, step, math.nan if value is None else float(value))
        for name, value in row.items()
        if value is None or isinstance(value, int | float)
    ]
