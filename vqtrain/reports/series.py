"""The curves of a run, grouped into charts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from vqtrain.metrics.parts.declarations import CODE_LENGTH, declaration
from vqtrain.reports.blocks import Charts
from vqtrain.reports.charts import Axis, Line, curves, thinned
from vqtrain.training.results import Curve

# Points per curve, and of all curves of a page, which keep it small.
MOST_OF_ONE, MOST_OF_ALL = 2_000, 60_000

SIDES = {"train": "training", "val": "validation"}
OPTIMIZATION = {
    "gradient_norm": ("Gradient norms", "norm"),
    "learning_rate": ("Learning rates", "learning rate"),
}
GROUPS = (
    "Code length",
    "Validation",
    "Losses",
    "Codebook",
    "Discriminator",
    "Optimization",
    "Other",
)


@final
@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a metric is shown: group, chart, axis, and name of the curve."""

    group: str
    chart: str
    axis: str
    name: str
    can_be_log: bool = False


def label(name: str) -> str:
    """Name a metric for people.

    Example:
        >>> label("psnr"), label("rfid@5000"), label("lpips_alex"), label("codebook_entropy")
        ('PSNR', 'rFID@5000', 'LPIPS alex', 'Codebook entropy')
    """
    return declaration(name).title


def metric_axis(name: str) -> Axis:
    """Make the axis of a metric, with its better direction."""
    declared = declaration(name)
    better = "lower" if declared.lower_is_better else "higher"
    return Axis(key=name, title=declared.axis, better=better)


def place_of(metric: str) -> Place:
    """Return where a metric of ``metrics.jsonl`` is shown."""
    side, _, rest = metric.partition("/")
    network, _, last = rest.rpartition("/")
    name = last.replace("_", " ")
    if network == "codebook":
        side = SIDES.get(side, side)
        return Place(group="Codebook", chart=label(last), axis=declaration(last).axis, name=side)
    if last in CODE_LENGTH:
        side, chart = SIDES.get(side, side), label(last)
        return Place(group="Code length", chart=chart, axis=chart, name=side, can_be_log=True)
    if side == "val":
        return Place(
            group="Validation", chart=label(rest), axis=declaration(rest).axis, name=label(rest)
        )
    if last in OPTIMIZATION:
        chart, axis = OPTIMIZATION[last]
        return Place(group="Optimization", chart=chart, axis=axis, name=network, can_be_log=True)
    if network == "generator":
        group, chart = "Losses", "Terms of the loss"
        return Place(group=group, chart=chart, axis="loss", name=name, can_be_log=True)
    if network == "discriminator" and last.startswith("logits_"):
        name = last.removeprefix("logits_")
        return Place(group="Discriminator", chart="Mean logits", axis="logit", name=name)
    if network == "discriminator" and last == "total":
        return Place(group="Discriminator", chart="Loss", axis="loss", name="loss", can_be_log=True)
    if network == "adversarial" and last.endswith("_gradient"):
        group, chart = "Discriminator", "Gradients at the last layer"
        name = name.removesuffix(" gradient")
        return Place(group=group, chart=chart, axis="norm", name=name, can_be_log=True)
    if network == "adversarial":
        return Place(group="Discriminator", chart=f"Adversarial {name}", axis=name, name=name)
    return Place(group="Other", chart=label(last), axis=declaration(last).axis, name=name)


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
