"""A sweep as a table: in the terminal, as CSV, as Parquet."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vqtrain.data.cache import write_whole
from vqtrain.generation import ranks
from vqtrain.metrics.parts.declarations import declaration
from vqtrain.sweeps.job import FAILURE
from vqtrain.sweeps.probes import ENTROPY_RATE, HEADS, MODEL_RATE, PERTURBED
from vqtrain.sweeps.results import (
    COLLAPSED,
    FAILED,
    INTERRUPTED,
    WAITING,
    JobResult,
    Point,
    Spread,
    SweepResult,
)

CSV_FILE, PARQUET_FILE = "sweep.csv", "sweep.parquet"
MISSING = "-"


def rows_of(result: SweepResult) -> list[dict[str, object]]:
    """Return a row for each run, all with the same columns; None for unknown values."""
    ahead = {name: point.frontier for point in result.points for name in point.jobs}
    codebook = dict.fromkeys(name for job in result.jobs for name in job.codebook or {})
    return [
        {
            "name": job.name,
            "state": job.state,
            "code": job.code,
            "reason": job.reason,
            **{key: _cell(job.values.get(key)) for key in result.axes},
            "kind": job.kind,
            "image_size": _cell(job.image_size),
            "tokens_per_image": job.tokens_per_image,
            "bits_per_pixel": job.bits_per_pixel,
            **{name: job.metrics.get(name) for name in result.metrics},
            **{name: job.probe.get(name) for name in result.probe},
            **{name: (job.codebook or {}).get(name) for name in codebook},
            "parameters": job.parameters,
            "gflops": job.gflops,
            "train_seconds": job.train_seconds,
            "frontier": " ".join(ahead.get(job.name, [])),
            "run_dir": job.run_dir,
        }
        for job in result.jobs
    ]


def _cell(value: object) -> object:
    return value if isinstance(value, int | float | str) or value is None else str(value)


def save_tables(result: SweepResult, sweep_dir: Path) -> None:
    """Write ``sweep.csv`` and ``sweep.parquet``, a row for each run.

    Raises:
        OSError: If they cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    rows = rows_of(result)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(sweep_dir / CSV_FILE, text.getvalue().encode())
    columns = {name: _column([row[name] for row in rows]) for name in rows[0]}
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), content)
    write_whole(sweep_dir / PARQUET_FILE, content.getvalue())


def _column(values: Sequence[object]) -> list[object]:
    """Give the values of a column one type, as Parquet needs it."""
    kinds = {type(value) for value in values if value is not None}
    fits = all(abs(value) < 2**63 for value in values if isinstance(value, int))
    if fits and (kinds <= {int, float} or len(kinds) <= 1):
        return [float(v) if kinds == {int, float} and isinstance(v, int) else v for v in values]
    return [None if value is None else str(value) for value in values]


def show(result: SweepResult, console: Console) -> None:
    """Print a row for each point, sorted by kind and rate, and then the problems."""
    if result.points:
        console.print(_table(result), markup=False)
        console.print("*  on the frontier: no other point is better at the same or a lower rate")
        if any(len(point.jobs) > 1 for point in result.points):
            console.print("+- largest distance of a seed from the mean")
        for line in ranks.describe(rank_correlations(result)):
            console.print(line)
    for state in (COLLAPSED, FAILED, INTERRUPTED, WAITING):
        for job in result.jobs:
            if job.state == state:
                why = f": {job.reason}" if job.reason else ""
                console.print(f"{state:<12}{job.name}{why}", markup=False)
    if any(job.state == FAILED for job in result.jobs):
        console.print(f"{'':<12}a failed run runs again once its {FAILURE} is deleted")


def rank_correlations(result: SweepResult) -> list[ranks.RankCorrelation]:
    """Correlate the orders of the points by the first metric and by each probe."""
    figures = {"entropy": ENTROPY_RATE, "perturb": PERTURBED, "transformer": MODEL_RATE}
    figures = {name: key for name, key in figures.items() if key in result.probe}
    if figures and result.metrics:
        figures = {"reconstruction": result.metrics[0], **figures}
    columns = {}
    for name, key in figures.items():
        is_less_better = key in (ENTROPY_RATE, MODEL_RATE) or declaration(key).lower_is_better
        found = [point.figure(key) for point in result.points]
        sign = -1.0 if is_less_better else 1.0
        columns[name] = [None if each is None else sign * each.mean for each in found]
    return ranks.rank_correlations(columns)


def _table(result: SweepResult) -> Table:
    table = Table(box=None, pad_edge=False)
    metrics = result.metrics
    probe = {name: 2 if name == PERTURBED else 4 for name in result.probe}
    heads = [HEADS.get(name, name) for name in probe]
    keys = list(result.points[0].values)
    for name in keys:
        table.add_column(name.removeprefix("codebook."), justify="left", no_wrap=True)
    for name in ("runs", "bits/px", *metrics, *heads, "usage", "GFLOPs", "train s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    kinds = list(dict.fromkeys(point.kind for point in result.points))
    order = sorted(
        result.points, key=lambda point: (kinds.index(point.kind), point.bits_per_pixel or 0.0)
    )
    for point in order:
        table.add_row(
            *(str(point.values[key]) for key in keys),
            str(len(point.jobs)),
            MISSING if point.bits_per_pixel is None else f"{point.bits_per_pixel:.4f}",
            *(_figure(point, name) for name in metrics),
            *(_around(point.probe.get(name), decimals) for name, decimals in probe.items()),
            _around(point.usage, 3),
            f"{point.gflops:.3g}",
            MISSING if point.train_seconds is None else f"{point.train_seconds.mean:.0f}",
            f"collapsed: {point.collapsed} of {len(point.jobs)}" if point.collapsed else "",
        )
    return table


def _figure(point: Point, metric: str) -> str:
    mark = "*" if metric in point.frontier else " "
    decimals = 2 if declaration(metric).unit == "dB" else 4
    return f"{_around(point.metrics.get(metric), decimals)}{mark}"


def _around(spread: Spread | None, decimals: int) -> str:
    """Write a mean, and the largest distance of a seed from it."""
    if spread is None:
        return MISSING
    farthest = max(spread.high - spread.mean, spread.mean - spread.low)
    text = f"{spread.mean:.{decimals}f}"
    return text if farthest == 0 else f"{text} +-{farthest:.{decimals}f}"


def tally(jobs: Sequence[JobResult]) -> str:
    """Count runs by their state, such as ``5 finished, 1 failed``."""
    counts: Mapping[str, int] = {
        state: sum(job.state == state for job in jobs)
        for state in dict.fromkeys(job.state for job in jobs)
    }
    return ", ".join(f"{count} {state}" for state, count in counts.items())
