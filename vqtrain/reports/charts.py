"""Charts as plain data, which ``charts.js`` draws."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import final

import numpy as np
from jaxtyping import Float64

# Digits of a value that are kept; more cannot be seen.
DIGITS = 5

Number = int | float
# A number, or mean, low and high.
Value = Number | tuple[Number, Number, Number]


@final
@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve.

    Attributes:
        name: For the legend.
        x: Where its points are.
        y: Their values; NaN is a gap.
    """

    name: str
    x: Float64[np.ndarray, " n"]
    y: Float64[np.ndarray, " n"]


@final
@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis of a scatter that can be chosen.

    Attributes:
        key: Of the values of the points.
        title: With the unit.
        better: ``higher``, ``lower`` or empty.
    """

    key: str
    title: str
    better: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a scatter.

    Attributes:
        name: For the tooltip and the table.
        group: Decides its color and shape, and is an entry of the legend.
        values: By key of an axis: a number, or mean, low and high.
        note: Further text.
        is_hollow: Whether it is drawn hollow.
        frontier: Keys of the axes upward for which it is on the frontier.
    """

    name: str
    group: str
    values: Mapping[str, Value | None]
    note: str = ""
    is_hollow: bool = False
    frontier: Sequence[str] = ()


def curves(
    title: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    can_be_log: bool = False,
    is_log: bool = False,
    is_stepped: bool = False,
) -> dict[str, object]:
    """Describe a chart of curves.

    Args:
        title: Above it.
        lines: The curves.
        x: Title of the axis, with the unit.
        y: Title of the other axis, with the unit.
        can_be_log: Whether a button makes the values' axis logarithmic.
        is_log: Whether it is so at first.
        is_stepped: Whether a value holds until the next one, as in a histogram.
    """
    return {
        "kind": "curves",
        "title": title,
        "x": x,
        "y": y,
        "log": "on" if is_log else "off" if can_be_log else "",
        "stepped": is_stepped,
        "lines": [
            {"name": line.name, "x": plain(line.x.tolist()), "y": plain(line.y.tolist())}
            for line in lines
        ],
    }


def scatter(
    title: str, points: Sequence[Point], *, xs: Sequence[Axis], ys: Sequence[Axis]
) -> dict[str, object]:
    """Describe a chart of points; of several axes, one is chosen on the page."""
    groups = list(dict.fromkeys(point.group for point in points))
    keys = [axis.key for axis in (*xs, *ys)]
    return {
        "kind": "scatter",
        "title": title,
        "xs": [asdict(axis) for axis in xs],
        "ys": [asdict(axis) for axis in ys],
        "groups": groups,
        "points": [
            {
                "name": point.name,
                "group": groups.index(point.group),
                "values": {key: _ends(point.values.get(key)) for key in keys},
                "note": point.note,
                "hollow": point.is_hollow,
                "frontier": list(point.frontier),
            }
            for point in points
        ],
    }


def _ends(value: Value | None) -> list[Number | None] | None:
    if value is None:
        return None
    found = plain(value if isinstance(value, tuple) else [value])
    return None if None in found else found


def plain(values: Sequence[Number | None]) -> list[Number | None]:
    """Round to a few digits; non-finite values become None.

    Example:
        >>> plain([0.123456789, 500000.0, math.nan, 1e-7])
        [0.12346, 500000, None, 1e-07]
    """
    return [_plain(value) for value in values]


def _plain(value: Number | None) -> Number | None:
    if value is None or not math.isfinite(value):
        return None
    if value == round(value):
        return int(value)
    return float(f"{value:.{DIGITS}g}")


def thinned(
    x: Float64[np.ndarray, " n"], y: Float64[np.ndarray, " n"], most: int
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """Keep at most ``most`` points, among them the ends, the extremes of every part, and gaps.

    The curve is cut into parts of equally many points. Each part keeps its smallest and its largest
    value and, if it has one, its first missing value.

    Args:
        x: In rising order.
        y: Values; NaN is a gap.
        most: At least 8.
    """
    if len(x) <= most:
        return x, y
    has_gaps = bool(np.isnan(y).any())
    parts = np.array_split(np.arange(len(x)), (most - 2) // (3 if has_gaps else 2))
    kept = {0, len(x) - 1}
    for part in parts:
        values = y[part]
        missing = np.isnan(values)
        if missing.any():
            kept.add(int(part[missing.argmax()]))
        if not missing.all():
            kept |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
    places = np.array(sorted(kept))
    return x[places], y[places]
