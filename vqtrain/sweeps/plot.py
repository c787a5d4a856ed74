"""A sweep as one picture: rate against distortion, use of the codebook, cost against quality."""

import io
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vqtrain.data.cache import write_whole
from vqtrain.sweeps.results import Point, Spread, SweepResult, is_lower_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "sweep.png"
COLUMNS = 3
SIDE_INCHES = 4.2
DOTS_PER_INCH = 110
# Of Okabe and Ito, told apart by those who do not see all colors.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p")
# Below this use, a point is drawn hollow.
LITTLE_USE = 0.5
SIZE_KEY = "codebook.size"
TITLES = {
    "psnr": "PSNR in dB",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "lpips_alex": "LPIPS (alex)",
    "lpips_vgg": "LPIPS (vgg)",
}


def save_plot(result: SweepResult, sweep_dir: Path) -> None:
    """Write ``sweep.png``, if there is anything to draw.

    Colors and shapes are kinds of codebooks; bars are from the least to the greatest of the seeds;
    lines join points that differ by their size alone; a gray line is the frontier.

    Raises:
        OSError: If it cannot be written.
    """
    from matplotlib.figure import Figure  # a second, where nothing else needs it

    kinds = list(dict.fromkeys(point.kind for point in result.points))
    panels = _panels(result, kinds)
    if not panels:
        (sweep_dir / FILE).unlink(missing_ok=True)  # of an earlier call
        return
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(SIDE_INCHES * columns, SIDE_INCHES * 0.85 * rows), layout="tight")
    for place, draw in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        draw(axes)
        axes.grid(visible=True, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if place == 0:
            axes.legend(frameon=False, fontsize="small")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    write_whole(sweep_dir / FILE, content.getvalue())


def _panels(result: SweepResult, kinds: Sequence[str]) -> list[Callable[["Axes"], None]]:
    """Return what draws each panel."""
    points = result.points
    rated = [point for point in points if point.bits_per_pixel is not None]
    timed = [point for point in points if point.train_seconds is not None]
    panels: list[Callable[[Axes], None]] = []
    if rated:
        panels += [partial(_rate, rated, metric, kinds) for metric in result.metrics]
    used = [point for point in rated if point.usage is not None]
    if used:
        panels.append(partial(_use, used, kinds))
    first = next(iter(result.metrics), None)
    if timed and first is not None:
        panels.append(partial(_cost, timed, first, kinds))
    return panels


def _rate(points: Sequence[Point], metric: str, kinds: Sequence[str], axes: "Axes") -> None:
    ahead = sorted(
        (point for point in points if metric in point.frontier),
        key=lambda point: point.bits_per_pixel or 0.0,
    )
    axes.plot(
        [point.bits_per_pixel or 0.0 for point in ahead],
        [point.metrics[metric].mean for point in ahead],
        color="0.75",
        linewidth=5,
        solid_capstyle="round",
        zorder=1,
        label="frontier",
    )
    _scatter(
        axes,
        [point for point in points if metric in point.metrics],
        kinds,
        x=lambda point: point.bits_per_pixel or 0.0,
        y=lambda point: point.metrics[metric],
    )
    axes.set_xlabel("bits a pixel")
    axes.set_ylabel(title(metric))
    if is_lower_better(metric):
        axes.set_title("lower is better", fontsize="small", loc="left")


def _use(points: Sequence[Point], kinds: Sequence[str], axes: "Axes") -> None:
    def use(point: Point) -> Spread:
        assert point.usage is not None, "others are left out"
        return point.usage

    _scatter(axes, points, kinds, x=lambda point: point.bits_per_pixel or 0.0, y=use)
    axes.set_xlabel("bits a pixel")
    axes.set_ylabel("share of the codes that occur")
    axes.set_ylim(-0.03, 1.05)


def _cost(points: Sequence[Point], metric: str, kinds: Sequence[str], axes: "Axes") -> None:
    def seconds(point: Point) -> float:
        assert point.train_seconds is not None, "others are left out"
        return point.train_seconds.mean

    known = [point for point in points if metric in point.metrics]
    _scatter(axes, known, kinds, x=seconds, y=lambda point: point.metrics[metric], joined=False)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel(title(metric))


def _scatter(
    axes: "Axes",
    points: Sequence[Point],
    kinds: Sequence[str],
    *,
    x: Callable[[Point], float],
    y: Callable[[Point], Spread],
    joined: bool = True,
) -> None:
    """Draw points with bars over seeds; those that differ by their size alone are joined."""
    series: dict[str, list[Point]] = {}
    for point in points:
        rest = {key: value for key, value in point.values.items() if key != SIZE_KEY}
        series.setdefault(json.dumps([point.kind, rest], default=str), []).append(point)
    named: set[str] = set()
    for members in series.values():
        members.sort(key=x)
        kind = members[0].kind
        number = kinds.index(kind)
        color = COLORS[number % len(COLORS)]
        means = [y(point).mean for point in members]
        axes.errorbar(
            [x(point) for point in members],
            means,
            yerr=[
                [mean - y(point).low for mean, point in zip(means, members, strict=True)],
                [y(point).high - mean for mean, point in zip(means, members, strict=True)],
            ],
            color=color,
            linestyle="-" if joined else "none",
            linewidth=1,
            capsize=3,
            zorder=2,
        )
        for point, mean in zip(members, means, strict=True):
            is_little = point.usage is not None and point.usage.mean < LITTLE_USE
            axes.plot(
                [x(point)],
                [mean],
                SHAPES[number % len(SHAPES)],
                color=color,
                markerfacecolor="white" if is_little else color,
                markersize=7,
                zorder=3,
                label=None if kind in named else kind,
            )
            named.add(kind)


def title(metric: str) -> str:
    """Name a metric on an axis."""
    return TITLES.get(metric, metric)
