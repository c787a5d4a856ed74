"""The page of a sweep: the results of each setting, their rate and cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from vqtrain.data.remote.urls import shareable
from vqtrain.drawing.panels import panel_size
from vqtrain.reports.blocks import (
    Block,
    Cell,
    Charts,
    Code,
    Facts,
    Item,
    Layer,
    Page,
    Table,
    Text,
    Viewer,
    figure,
    number,
    sections_of,
    table,
    word,
)
from vqtrain.reports.charts import Axis, Point, scatter
from vqtrain.reports.images import ORIGINAL, RGB, Budget, PageImages, read_image, split_strip
from vqtrain.reports.probe import agreement
from vqtrain.reports.series import label, metric_axis
from vqtrain.shapes import ImageSize, sample_size_of
from vqtrain.sweeps import results, tables
from vqtrain.sweeps.probes import HEADS, PROBE_TITLES
from vqtrain.sweeps.results import (
    DONE,
    GFLOPS,
    PARAMETERS,
    RATE,
    SECONDS,
    TITLES,
    USAGE,
    JobResult,
    Spread,
    SweepResult,
    frontier,
    read_sweep,
)

TONES = {"finished": "good", "collapsed": "bad", "failed": "bad", "interrupted": "bad"}
IMAGE_BYTES, MOST_IMAGES = 3_300_000, 8


def is_sweep(path: Path) -> bool:
    """Say whether a folder is that of a sweep."""
    return (path / results.FILE).is_file()


def sweep_page(folder: Path) -> Page:
    """Make the page of a sweep.

    Raises:
        ConfigError: If its results cannot be read.
    """
    sweep = read_sweep(folder)
    images = PageImages()
    sections: dict[str, tuple[str, Sequence[Block]]] = {"summary": ("Summary", summary(sweep))}
    if sweep.points:
        drawn = list(map(chart_point, sweep.points))
        sections |= {
            "points": ("Points", [points_table(sweep)]),
            "rate": ("Rate and quality", rate_charts(sweep, drawn)),
            "model": ("Rate of a model of the ids", model_charts(sweep, drawn)),
            "usage": ("Codebook usage", usage_charts(sweep, drawn)),
            "cost": ("Cost", cost_charts(sweep, drawn)),
            "reconstructions": ("Reconstructions", reconstructions(folder, sweep, images)),
        }
    sections["runs"] = ("Runs", [runs_table(folder, sweep)])
    finished = sum(job.state in DONE for job in sweep.jobs)
    counted = f"{len(sweep.points)} point{'s' * (len(sweep.points) != 1)}"
    return Page(
        title=folder.resolve().name,
        kind="Sweep",
        subtitle=f"{finished} of {len(sweep.jobs)} runs have results, {counted}",
        sections=sections_of(sections),
        images=images.uris,
    )


def summary(sweep: SweepResult) -> list[Block]:
    """Show the command, the axes and the states of the runs."""
    states = Counter(job.state for job in sweep.jobs)
    facts = [("runs", f"{len(sweep.jobs):,}"), *((state, f"{n:,}") for state, n in states.items())]
    axes = [(key, ", ".join(map(str, values))) for key, values in sweep.axes.items()]
    return [Facts(rows=facts, is_large=True), Code(text=shareable(sweep.command)), Facts(rows=axes)]


def chart_point(point: results.Point) -> Point:
    """Make a point of the charts."""
    of = f" in {point.collapsed} of {len(point.jobs)} seeds" if len(point.jobs) > 1 else ""
    notes = [f"codebook collapsed{of}"] if point.collapsed else []
    notes += [f"{len(point.jobs)} seeds"] if len(point.jobs) > 1 else []
    found = {
        key: point.figure(key) for key in (*TITLES, *point.metrics, *point.probe, *point.values)
    }
    return Point(
        name=point.label,
        group=point.kind,
        values={
            key: None if value is None else (value.mean, value.low, value.high)
            for key, value in found.items()
        },
        note="; ".join(notes),
        is_hollow=point.collapsed > 0,
        frontier=point.frontier,
    )


def axes_of(points: Sequence[Point], *keys: str) -> list[Axis]:
    """Make the axes for which any point has a figure."""
    return [
        Axis(key=key, title={**TITLES, **PROBE_TITLES}.get(key, key))
        for key in keys
        if any(point.values.get(key) is not None for point in points)
    ]


def rate_charts(sweep: SweepResult, points: Sequence[Point]) -> list[Block]:
    """Draw bits per pixel against each metric, with the frontier."""
    charts = [
        scatter(label(name), points, xs=axes_of(points, RATE), ys=[metric_axis(name)])
        for name in sweep.metrics
        if axes_of(points, RATE)
    ]
    if not charts:
        return [Text(text="No run has a rate yet." if sweep.metrics else "No run has results yet.")]
    text = (
        "A line joins the frontier: points that no other point beats at the same or a lower rate. "
        "Bars span the lowest and the highest seed. A hollow point has a collapsed codebook."
    )
    if any(point.values[RATE] is None for point in points):
        text += " Continuous codebooks have no rate, so their points are not shown."
    return [Text(text=text), Charts(title="", charts=charts)]


def model_charts(sweep: SweepResult, points: Sequence[Point]) -> list[Block]:
    """Draw the rate of the best models that were probed against each metric, if any were."""
    rate = sweep.model_rate
    if rate is None:
        return []
    charts = []
    for name in sweep.metrics:
        leading = frontier(sweep.points, name, rate=rate)
        drawn = [
            replace(point, frontier=[name] if place in leading else [])
            for place, point in enumerate(points)
        ]
        charts.append(scatter(label(name), drawn, xs=axes_of(points, rate), ys=[metric_axis(name)]))
    text = (
        "The same with the bits that a model needs to store the ids of images that it was not "
        "trained on. A model that predicts the ids well needs fewer than the ids have, so this is "
        "the rate that tells how hard the tokens are to generate."
    )
    return [
        Text(text=text),
        Charts(title="", charts=charts),
        *agreement(tables.rank_correlations(sweep)),
    ]


def usage_charts(sweep: SweepResult, points: Sequence[Point]) -> list[Block]:
    """Draw the share of ids in use against each axis of numbers, and against the rate."""
    keys = sorted(sweep.axes, key=lambda key: "size" not in key)
    xs, ys = axes_of(points, *keys, RATE), axes_of(points, USAGE)
    if not xs or not ys:
        return [Text(text="No run has reported how its ids are used.")]
    return [Charts(title="", charts=[scatter("Usage", points, xs=xs, ys=ys)])]


def cost_charts(sweep: SweepResult, points: Sequence[Point]) -> list[Block]:
    """Draw the metrics of points against a cost that is chosen on the page."""
    xs = axes_of(points, SECONDS, GFLOPS, PARAMETERS)
    charts = [
        scatter(f"{label(name)} by cost", points, xs=xs, ys=[metric_axis(name)])
        for name in sweep.metrics
        if xs
    ]
    return [Charts(title="", charts=charts) if charts else Text(text="No run has results yet.")]


def points_table(sweep: SweepResult) -> Table:
    """List the points, with the metrics for which each is on the frontier."""
    has_collapsed = any(point.collapsed for point in sweep.points)
    rows = [
        {
            "point": word(point.label),
            "on the frontier of": word(", ".join(map(label, point.frontier)), tone="good"),
            **({"collapsed": collapse(point)} if has_collapsed else {}),
            "bits/px": number(point.bits_per_pixel, decimals=4),
            **{label(n): spread(point.metrics.get(n), decimals=4) for n in sweep.metrics},
            **{HEADS.get(n, n): spread(point.probe.get(n), decimals=4) for n in sweep.probe},
            "usage": spread(point.usage, decimals=3),
            "training (s)": spread(point.train_seconds, decimals=1),
            "GFLOPs": number(point.gflops),
            "parameters": number(point.parameters),
            "seeds": number(len(point.jobs)),
        }
        for point in sweep.points
    ]
    note = "Means over seeds, with the lowest and the highest below."
    return table("Points", rows, search="point", notes=[note])


def collapse(point: results.Point) -> Cell:
    """Say in how many seeds of a point the codebook has collapsed."""
    return word(f"{point.collapsed} of {len(point.jobs)}" * (point.collapsed > 0), tone="bad")


def spread(found: Spread | None, *, decimals: int) -> Cell:
    """Make a cell of a mean with its ends, sorted by the mean."""
    if found is None:
        return number(None)
    shown = figure(found.mean, decimals=decimals)
    if found.low < found.high:
        shown += f"\n{figure(found.low, decimals=decimals)} to "
        shown += figure(found.high, decimals=decimals)
    return Cell(text=shown, value=found.mean, is_number=True)


def runs_table(folder: Path, sweep: SweepResult) -> Table:
    """List all runs, with links to their pages."""
    rows = [
        {
            "run": word(job.name, href=link(folder, job)),
            "state": word(job.state, tone=TONES.get(job.state, "quiet")),
            "reason": word(shareable(job.reason)),
            **{key: axis_cell(job.values.get(key)) for key in sweep.axes},
            "bits/px": number(job.bits_per_pixel, decimals=4),
            "tokens": number(job.tokens_per_image),
            **{label(name): number(job.metrics.get(name), decimals=4) for name in sweep.metrics},
            **{HEADS.get(n, n): number(job.probe.get(n), decimals=4) for n in sweep.probe},
            "usage": number((job.codebook or {}).get("usage"), decimals=3),
            "perplexity": number((job.codebook or {}).get("perplexity"), decimals=1),
            "parameters": number(job.parameters),
            "GFLOPs": number(job.gflops),
            "training (s)": number(job.train_seconds, decimals=1),
        }
        for job in sweep.jobs
    ]
    note = "A name links to the page of its run, as long as this file stays in the sweep's folder."
    return table("Runs", rows, search="run", notes=[note])


def axis_cell(value: object) -> Cell:
    """Make a cell of a value of an axis."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return number(value) if is_number else word(value)


def link(folder: Path, job: JobResult) -> str:
    """Return where the page of a run is, relative to the sweep; nothing if it is not."""
    page = f"{job.run_dir}/report.html"
    return quote(page) if (folder / page).is_file() else ""


def reconstructions(folder: Path, sweep: SweepResult, images: PageImages) -> list[Block]:
    """Show the same images as each point reconstructs them."""
    jobs = {job.name: job for job in sweep.jobs}
    rows: dict[str, tuple[list[RGB], list[RGB]]] = {}
    # If there is no room for all, those on a frontier come first.
    for point in sorted(sweep.points, key=lambda each: not each.frontier):
        shown = (jobs[name] for name in point.jobs if name in jobs)
        strips = (last_strip(folder / job.run_dir, job.image_size) for job in shown)
        strip = next((found for found in strips if found is not None), None)
        if strip is not None:
            rows[point.label] = strip
    if not rows:
        return []
    order = [ORIGINAL, *(point.label for point in sweep.points)]
    count = min(*(len(decoded) for _, decoded in rows.values()), MOST_IMAGES)
    originals = max((originals for originals, _ in rows.values()), key=lambda row: row[0].shape[0])
    budget = Budget(images, IMAGE_BYTES)
    items: list[Item] = []
    for place in range(count):
        versions = [originals[place], *(decoded[place] for _, decoded in rows.values())]
        numbers = budget.add(versions)
        if numbers is None and items:
            break
        if numbers is None:  # one image of all points does not fit: show as many points as fit
            numbers = first_that_fit(versions, images)
        layers = [Layer(name=n, image=i) for n, i in zip([ORIGINAL, *rows], numbers, strict=False)]
        layers.sort(key=lambda layer: order.index(layer.name))
        items.append(Item(name=f"image {place + 1}", layers=layers))
        if len(numbers) < len(versions):
            break
    return viewer_blocks(items, len(rows), len(sweep.points), count)


def viewer_blocks(items: Sequence[Item], shown: int, total: int, count: int) -> list[Block]:
    """Make the viewer, with a note on what is left out."""
    shown = min(shown, len(items[0].layers) - 1)
    if shown < 1:
        return [Text(text="The images are too large for this page.")]
    text = "The same validation images at the last step of each point, from one seed."
    if len(items) < count:
        text += f" {len(items)} of {count} images are shown, to keep this page small."
    if shown < total:
        text += f" {shown} of {total} points are shown, those on a frontier first."
    right = items[0].layers[1].name
    return [Text(text=text), Viewer(label="Reconstructions", items=items, right=right)]


def first_that_fit(versions: Sequence[RGB], images: PageImages) -> list[int]:
    """Add images, one by one, while they fit."""
    budget, numbers = Budget(images, IMAGE_BYTES), list[int]()
    for version in versions:
        numbers += budget.add([version]) or []
    return numbers


def last_strip(run: Path, size: ImageSize | None) -> tuple[list[RGB], list[RGB]] | None:
    """Read originals and reconstructions of a run's last validation; None if there are none."""
    files = sorted((run / "images").glob("step_*.png"))
    strip = read_image(files[-1]) if files else None
    if strip is None or strip.shape[0] < 2:
        return None
    panel = 1 if size is None else list(panel_size(sample_size_of(size)))
    rows = split_strip(strip, panel)
    return rows if rows[0] else None
