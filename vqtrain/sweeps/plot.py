"""A sweep as one plot: rate against distortion, codebook usage, cost against quality."""

import io
import json
import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqtrain.data.cache import write_whole
from vqtrain.metrics.parts.declarations import declaration
from vqtrain.sweeps.probes import PROBE_TITLES
from vqtrain.sweeps.results import (
    RATE,
    SECONDS,
    TITLES,
    USAGE,
    Point,
    Spread,
    SweepResult,
    frontier,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

FILE = "sweep.png"
COLUMNS, LEGEND_COLUMNS = 3, 6
SIDE_INCHES = 4.2
DOTS_PER_INCH = 110
# The palette of Okabe and Ito, for color-blind readers too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p")
FRONTIER = {"color": "0.8", "linewidth": 6, "solid_capstyle": "round"}
HOLLOW = "hollow: collapsed codebook"
SIZE_KEY = "codebook.size"


def save_plot(result: SweepResult, sweep_dir: Path) -> None:
    """Write ``sweep.png``, if there is anything to draw.

    With a probe, one panel has the bits per pixel of a model of the ids.

    Colors and shapes are kinds of codebooks. Bars span the lowest and the highest seed. Lines join
    points that differ only by their size, which is the label of a point. A gray line is the
    frontier. A point with a collapsed run is hollow.

    Raises:
        OSError: If it cannot be written.
    """
    from matplotlib.figure import Figure  # takes a second to import, and nothing else needs it

    points, first = result.points, result.metrics[:1]
    wanted = [*((RATE, metric) for metric in result.metrics), (RATE, USAGE)]
    wanted += [(rate, metric) for rate in (result.model_rate, SECONDS) if rate for metric in first]
    panels = [pair for pair in wanted if any(all(map(point.figure, pair)) for point in points)]
    if not panels:
        (sweep_dir / FILE).unlink(missing_ok=True)  # of an earlier call
        return
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = SIDE_INCHES * columns, SIDE_INCHES * 0.85 * rows + 0.6
    figure = Figure(figsize=size, layout="constrained")
    for place, (x, y) in enumerate(panels, start=1):
        _draw(figure.add_subplot(rows, columns, place), points, x=x, y=y)
    figure.suptitle(f"{sweep_dir.resolve().name}: {len(result.jobs)} runs", fontsize="medium")
    figure.legend(
        handles=_legend(points),
        loc="outside lower center",
        ncols=LEGEND_COLUMNS,
        frameon=False,
        fontsize="small",
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    write_whole(sweep_dir / FILE, content.getvalue())


def _looks(points: Sequence[Point]) -> dict[str, tuple[str, str]]:
    """Give each kind a color and a shape."""
    kinds = dict.fromkeys(point.kind for point in points)
    return dict(zip(kinds, zip(cycle(COLORS), cycle(SHAPES)), strict=False))


def _legend(points: Sequence[Point]) -> list["Line2D"]:
    """Return the legend's entries for each kind, the frontier, and hollow points."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=color, marker=shape, markersize=7, label=kind)
        for kind, (color, shape) in _looks(points).items()
    ]
    if any(point.frontier for point in points):
        handles.append(Line2D([], [], label="frontier", **FRONTIER))  # type: ignore[arg-type]  # looks
    if any(point.collapsed for point in points):
        hollow = {"color": "0.4", "markerfacecolor": "white", "linestyle": "none"}
        handles.append(Line2D([], [], marker="o", markersize=7, label=HOLLOW, **hollow))  # type: ignore[arg-type]  # looks
    return handles


def _draw(axes: "Axes", points: Sequence[Point], *, x: str, y: str) -> None:
    """Draw a panel: points with bars over seeds; lines join points of different sizes."""
    is_rate = x == RATE or x in PROBE_TITLES
    if is_rate and y != USAGE:
        ahead = sorted(
            (rate.mean, points[place].metrics[y].mean)
            for place in frontier(points, y, rate=x)
            if (rate := points[place].figure(x))
        )
        axes.plot([at for at, _ in ahead], [up for _, up in ahead], zorder=1, **FRONTIER)  # type: ignore[arg-type]  # looks
    series: dict[str, list[tuple[float, Spread, Point]]] = {}
    for point in points:
        rest = {key: value for key, value in point.values.items() if key != SIZE_KEY}
        across, up = point.figure(x), point.figure(y)
        if across is not None and up is not None:
            name = json.dumps([point.kind, rest], default=str)
            series.setdefault(name, []).append((across.mean, up, point))
    looks = _looks(points)
    for members in series.values():
        members.sort(key=lambda each: each[0])
        color, shape = looks[members[0][2].kind]
        axes.errorbar(
            [at for at, *_ in members],
            [up.mean for _, up, _ in members],
            yerr=np.array([[up.mean - up.low, up.high - up.mean] for _, up, _ in members]).T,
            color=color,
            linestyle="-" if is_rate else "none",
            linewidth=1,
            capsize=3,
            zorder=2,
        )
        for at, up, point in members:
            face = "white" if point.collapsed else color
            axes.plot([at], [up.mean], shape, color=color, mfc=face, markersize=7, zorder=3)
            if SIZE_KEY in point.values:
                axes.annotate(
                    str(point.values[SIZE_KEY]),
                    (at, up.mean),
                    xytext=(5, 6),
                    textcoords="offset points",
                    fontsize="x-small",
                    color=color,
                )
    note = "lower is better" if declaration(y).lower_is_better else ""
    if x == SECONDS:
        note = "unreliable on a busy machine"
    axes.set_title(note, fontsize="small", loc="left")
    axes.set(xlabel={**TITLES, **PROBE_TITLES}[x], ylabel=TITLES.get(y) or declaration(y).axis)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if y == USAGE:
        axes.set_ylim(-0.03, 1.05)
