"""A sweep as one picture: rate against distortion, use of the codebook, cost against quality."""

import io
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vqtrain.data.cache import write_whole
from vqtrain.evaluation.metrics import is_lower_better
from vqtrain.sweeps.results import Point, Spread, SweepResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

FILE = "sweep.png"
COLUMNS, LEGEND_COLUMNS = 3, 6
SIDE_INCHES = 4.2
DOTS_PER_INCH = 110
# Of Okabe and Ito, told apart by those who do not see all colors.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p")
FRONTIER = {"color": "0.8", "linewidth": 6, "solid_capstyle": "round"}
HOLLOW = "hollow: hardly any code is used"
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
    lines join points that differ by their size alone, which stands beside them; a gray line is the
    frontier; a point of which a run has collapsed is hollow.

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
    size = SIDE_INCHES * columns, SIDE_INCHES * 0.85 * rows + 0.6
    figure = Figure(figsize=size, layout="constrained")
    for place, draw in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        draw(axes)
        axes.grid(visible=True, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{sweep_dir.resolve().name}: {len(result.jobs)} runs", fontsize="medium")
    figure.legend(
        handles=_legend(result.points, kinds),
        loc="outside lower center",
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize="small",
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    write_whole(sweep_dir / FILE, content.getvalue())


def _legend(points: Sequence[Point], kinds: Sequence[str]) -> list["Line2D"]:
    """Return what stands for each kind, for the frontier, and for hollow points."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=_color(number), marker=_shape(number), markersize=7, label=kind)
        for number, kind in enumerate(kinds)
    ]
    if any(point.frontier for point in points):
        handles.append(Line2D([], [], label="frontier", **FRONTIER))  # type: ignore[arg-type]  # looks
    if any(point.collapsed for point in points):
        hollow = {"color": "0.4", "markerfacecolor": "white", "linestyle": "none"}
        handles.append(Line2D([], [], marker="o", markersize=7, label=HOLLOW, **hollow))  # type: ignore[arg-type]  # looks
    return handles


def _color(number: int) -> str:
    return COLORS[number % len(COLORS)]


def _shape(number: int) -> str:
    return SHAPES[number % len(SHAPES)]


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
        zorder=1,
        **FRONTIER,  # type: ignore[arg-type]  # looks
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
    axes.set_title("on a busy machine the time says little", fontsize="small", loc="left")
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
    for members in series.values():
        members.sort(key=x)
        number = kinds.index(members[0].kind)
        color = _color(number)
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
            axes.plot(
                [x(point)],
                [mean],
                _shape(number),
                color=color,
                markerfacecolor="white" if point.collapsed else color,
                markersize=7,
                zorder=3,
            )
            if SIZE_KEY in point.values:
                axes.annotate(
                    str(point.values[SIZE_KEY]),
                    (x(point), mean),
                    xytext=(5, 6),
                    textcoords="offset points",
                    fontsize="x-small",
                    color=color,
                )


def title(metric: str) -> str:
    """Name a metric on an axis."""
    return TITLES.get(metric, metric)
