"""Curves that are thinned, and points as plain data."""

import json
import math

import numpy as np
import pytest

from vqtrain.reports.charts import Axis, Line, Point, curves, scatter, thinned


def test_a_thinned_curve_keeps_its_ends_its_extremes_and_its_gaps() -> None:
    x = np.arange(100_000.0)
    y = np.sin(x / 1000)
    y[40_123], y[70_321], y[12_345] = 50.0, -50.0, math.nan
    kept_x, kept_y = thinned(x, y, 2_000)
    assert 1_000 < len(kept_x) <= 2_000
    assert np.all(np.diff(kept_x) > 0)
    assert (kept_x[0], kept_x[-1]) == (0, 99_999)
    assert np.nanmax(kept_y) == 50.0
    assert np.nanmin(kept_y) == -50.0
    assert kept_x[np.isnan(kept_y)].tolist() == [12_345]


@pytest.mark.parametrize("share_missing", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("most", [8, 9, 100])
def test_a_thinned_curve_is_never_longer_than_allowed(most: int, share_missing: float) -> None:
    y = np.random.default_rng(0).normal(size=1_000)
    y[: int(1_000 * share_missing)] = math.nan
    assert len(thinned(np.arange(1_000.0), y, most)[0]) <= most


def test_a_short_curve_is_left_as_it_is() -> None:
    x = np.arange(5.0)
    assert thinned(x, x**2, 8)[1].tolist() == [0, 1, 4, 9, 16]


def test_a_value_that_is_no_number_is_null() -> None:
    line = Line(name="a", x=np.array([1.0, 2, 3]), y=np.array([0.5, math.nan, math.inf]))
    spec = curves("title", [line], x="step", y="loss")
    assert json.loads(json.dumps(spec, allow_nan=False))["lines"] == [
        {"name": "a", "x": [1, 2, 3], "y": [0.5, None, None]}
    ]


def test_points_keep_their_ends_and_lose_what_is_not_known() -> None:
    values = {"bits": 0.5, "psnr": (20.0, 19.0, 21.0), "cost": None, "other": 1.0}
    points = [Point(name="a", group="fsq", values=values), Point(name="b", group="vq", values={})]
    spec = scatter(
        "t",
        points,
        xs=[Axis(key="bits", title="bits a pixel"), Axis(key="cost", title="s")],
        ys=[Axis(key="psnr", title="PSNR (dB)")],
    )
    assert spec["groups"] == ["fsq", "vq"]
    first, second = spec["points"]  # type: ignore[misc]  # a list of plain data
    assert first["values"] == {"bits": [0.5], "cost": None, "psnr": [20, 19, 21]}
    assert second["values"] == {"bits": None, "cost": None, "psnr": None}
