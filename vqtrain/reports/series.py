"""The curves of a run, from ``metrics.jsonl`` to charts of what belongs together."""

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float64

from vqtrain.reports.blocks import Charts
from vqtrain.reports.charts import Line, curves, thinned

# Points of a curve, and of all curves of a page, so that it stays small.
MOST_OF_ONE, MOST_OF_ALL = 2_000, 60_000

UNITS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "usage": "share of the ids",
    "usage@tokens": "share of the ids that so many tokens can reach",
    "perplexity": "ids",
    "top1_share": "share of the tokens",
    "restarts": "codes a step",
    "learning_rate": "learning rate",
    "gradient_norm": "norm",
    "skipped_steps": "steps",
}
NAMES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "usage": "Usage",
    "usage@tokens": "Usage",
    "top1_share": "Share of the most frequent id",
}
SIDES = {"train": "training", "val": "validation"}
GROUPS = ("Validation", "Losses", "Codebook", "Discriminator", "Optimization", "Other")


@final
@dataclass(frozen=True, kw_only=True)
class Curve:
    """A metric over the steps at which it was logged; NaN where it was no number."""

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
class Place:
    """Where a metric is shown: in a group, in a chart, on an axis, as a curve of a name."""

    group: str
    chart: str
    axis: str
    name: str
    can_be_log: bool = False


def read_metrics(file: Path) -> tuple[dict[str, Curve], int]:
    """Read every metric of a run, and count the lines that cannot be read.

    A last line that is being written is passed over. A file that is not there holds none.
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


def label(name: str) -> str:
    """Name a metric for people.

    Example:
        >>> label("psnr"), label("rfid@5000"), label("lpips_alex"), label("entropy_of_all")
        ('PSNR', 'rFID@5000', 'LPIPS alex', 'Entropy of all')
    """
    if name in NAMES:
        return NAMES[name]
    for word, shown in (("rfid", "rFID"), ("ms_ssim", "MS-SSIM"), ("lpips", "LPIPS")):
        if name.startswith(word):
            return f"{shown}{name[len(word) :].replace('_', ' ')}"
    return name.replace("_", " ").capitalize()


def axis_title(name: str) -> str:
    """Title the axis of a metric, with its unit."""
    return UNITS.get(name, label(name))


def place_of(metric: str) -> Place:
    """Say where a metric of ``metrics.jsonl`` is shown."""
    side, _, rest = metric.partition("/")
    network, _, last = rest.rpartition("/")
    if network == "codebook":
        side_name = SIDES.get(side, side)
        return Place(group="Codebook", chart=label(last), axis=axis_title(last), name=side_name)
    if side == "val":
        return Place(group="Validation", chart=label(rest), axis=axis_title(rest), name=label(rest))
    if last in ("gradient_norm", "learning_rate"):
        return Place(
            group="Optimization",
            chart="Gradient norms" if last == "gradient_norm" else "Learning rates",
            axis=axis_title(last),
            name=network,
            can_be_log=True,
        )
    name = last.replace("_", " ")
    if network == "generator":
        return Place(
            group="Losses", chart="Terms of the loss", axis="loss", name=name, can_be_log=True
        )
    if network == "discriminator" and last.startswith("logits_"):
        name = last.removeprefix("logits_")
        return Place(group="Discriminator", chart="Mean logits", axis="logit", name=name)
    if network == "discriminator" and last == "total":
        return Place(group="Discriminator", chart="Loss", axis="loss", name="loss", can_be_log=True)
    if network == "adversarial" and last.endswith("_gradient"):
        return Place(
            group="Discriminator",
            chart="Gradients at the last layer",
            axis="norm",
            name=name.removesuffix(" gradient"),
            can_be_log=True,
        )
    if network == "adversarial":
        return Place(group="Discriminator", chart=f"Adversarial {name}", axis=name, name=name)
    return Place(group="Other", chart=label(last), axis=axis_title(last), name=name)


def charts_of(metrics: Mapping[str, Curve]) -> list[Charts]:
    """Make charts of all metrics, group by group."""
    most = max(8, min(MOST_OF_ONE, MOST_OF_ALL // max(1, len(metrics))))
    groups: dict[str, dict[str, list[tuple[Place, Line]]]] = {name: {} for name in GROUPS}
    # A validation metric has few points: it comes first in its chart, and so gets its own color.
    for metric in sorted(metrics, key=lambda name: (not name.startswith("train/"), name)):
        curve, place = metrics[metric], place_of(metric)
        x, y = thinned(curve.steps, curve.values, most)
        line = Line(name=place.name, x=x, y=y)
        groups[place.group].setdefault(place.chart, []).append((place, line))
    return [
        Charts(
            title=group,
            charts=[
                curves(
                    chart,
                    [line for _, line in members],
                    x="step",
                    y=members[0][0].axis,
                    can_be_log=members[0][0].can_be_log,
                )
                for chart, members in charts.items()
            ],
        )
        for group, charts in groups.items()
        if charts
    ]
