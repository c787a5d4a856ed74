"""The page of a sweep: what each setting reached, at which rate and cost."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vqtrain.data.servers import shareable
from vqtrain.errors import ConfigError
from vqtrain.reports.blocks import (
    Block,
    Cell,
    Charts,
    Code,
    Facts,
    Item,
    Layer,
    Page,
    Section,
    Table,
    Text,
    Viewer,
    figure,
    number,
    word,
)
from vqtrain.reports.charts import Axis, Number, Point, Value, scatter
from vqtrain.reports.pictures import Album, Picture, cut_strip, read_picture
from vqtrain.reports.series import axis_title, label

JSON_FILE, FORMAT = "sweep.json", "vqtrain-sweep"
SEED, RATE, USAGE = "seed", "bits_per_pixel", "usage"
COSTS = {
    "train_seconds": "training time (s)",
    "gflops": "GFLOPs an image",
    "parameters": "parameters",
}
TONES = {"finished": "good", "collapsed": "bad", "failed": "bad", "interrupted": "bad"}
PICTURE_BYTES, MOST_PICTURES = 3_300_000, 8

Plain = Mapping[str, Any]


def is_sweep(path: Path) -> bool:
    """Say whether a folder is that of a sweep."""
    return (path / JSON_FILE).is_file()


def sweep_page(folder: Path) -> Page:
    """Make the page of a sweep.

    Raises:
        ConfigError: If its results cannot be read.
    """
    sweep = read_sweep(folder)
    jobs, metrics = list(sweep["jobs"]), dict(sweep.get("metrics") or {})
    points = list(sweep.get("points") or [])
    album = Album()
    drawn = [point_of(each, jobs) for each in points]
    sections = [Section(key="summary", title="Summary", blocks=summary(sweep, jobs))]
    if points:
        rates = rate_charts(drawn, metrics)
        sections += [
            Section(key="points", title="Points", blocks=[points_table(points, metrics)]),
            Section(key="rate", title="Rate and quality", blocks=rates),
            Section(key="usage", title="Use of the codebook", blocks=usage_charts(drawn, points)),
            Section(key="cost", title="Cost", blocks=cost_charts(drawn, metrics)),
        ]
        if compared := pictures(folder, points, jobs, album):
            sections.append(Section(key="pictures", title="Pictures", blocks=compared))
    sections.append(
        Section(key="jobs", title="Jobs", blocks=[jobs_table(folder, sweep, jobs, metrics)])
    )
    finished = sum(job.get("state") in ("finished", "collapsed") for job in jobs)
    counted = f"{len(points)} point{'s' * (len(points) != 1)}"
    return Page(
        title=folder.resolve().name,
        kind="Sweep",
        subtitle=f"{finished} of {len(jobs)} jobs have figures, {counted}",
        sections=sections,
        pictures=album.uris,
    )


def read_sweep(folder: Path) -> dict[str, Any]:
    """Read the results of a sweep.

    Raises:
        ConfigError: If that cannot be done.
    """
    file = folder / JSON_FILE
    try:
        sweep = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {file}, which the command of the sweep writes anew: {error}"
        ) from error
    if not isinstance(sweep, dict) or sweep.get("format") != FORMAT:
        raise ConfigError(f"cannot read {file}: its format is not {FORMAT}")
    if sweep.get("version") != 1 or not isinstance(sweep.get("jobs"), list):
        raise ConfigError(f"cannot read {file}: this vqtrain reads version 1")
    return sweep


def summary(sweep: Plain, jobs: Sequence[Plain]) -> list[Block]:
    """Say what was run, and what came of it."""
    states: dict[str, int] = {}
    for job in jobs:
        states[str(job.get("state"))] = states.get(str(job.get("state")), 0) + 1
    facts = [("jobs", f"{len(jobs):,}"), *((state, f"{n:,}") for state, n in states.items())]
    axes = [(key, ", ".join(map(str, values))) for key, values in sweep["axes"].items()]
    return [
        Facts(rows=facts, is_large=True),
        Code(text=shareable(str(sweep.get("command")))),
        Facts(rows=axes),
    ]


def ends(value: object) -> tuple[Number, Number, Number] | None:
    """Read mean, low and high."""
    if not isinstance(value, Mapping):
        return None
    found = tuple(value.get(name) for name in ("mean", "low", "high"))
    return found if None not in found else None  # type: ignore[return-value]  # three numbers


def spread(value: object, *, decimals: int) -> Cell:
    """Make a cell of a mean with its ends, sorted by the mean."""
    found = ends(value)
    if found is None:
        return number(None)
    mean, low, high = found
    shown = figure(mean, decimals=decimals)
    if low < high:
        shown += f"\n{figure(low, decimals=decimals)} to {figure(high, decimals=decimals)}"
    return Cell(text=shown, value=mean, is_number=True)


def point_of(point: Plain, jobs: Sequence[Plain]) -> Point:
    """Make a point of the charts."""
    states = {job.get("name"): job.get("state") for job in jobs}
    own = [states.get(name) for name in point.get("jobs") or []]
    collapsed = own.count("collapsed")
    notes = []
    if collapsed:
        of = f" in {collapsed} of {len(own)} seeds" if len(own) > 1 else ""
        notes.append(f"hardly any code is used{of}")
    if len(own) > 1:
        notes.append(f"{len(own)} seeds")
    values: dict[str, Value | None] = {
        **{name: ends(value) for name, value in (point.get("metrics") or {}).items()},
        RATE: point.get(RATE),
        USAGE: ends(point.get(USAGE)),
        "parameters": point.get("parameters"),
        "gflops": point.get("gflops"),
        "train_seconds": ends(point.get("train_seconds")),
        **{key: value for key, value in point["values"].items() if is_number(value)},
    }
    return Point(
        name=str(point.get("label")),
        group=str(point.get("kind")),
        values=values,
        note="; ".join(notes),
        is_hollow=collapsed > 0,
        frontier=list(point.get("frontier") or []),
    )


def is_number(value: object) -> bool:
    """Say whether a value of an axis is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def quality_axis(name: str, direction: str) -> Axis:
    """Make the axis of a metric, which says in which direction it is better."""
    return Axis(key=name, title=axis_title(name), better=direction)


def rate_charts(points: Sequence[Point], metrics: Mapping[str, str]) -> list[Block]:
    """Draw bits a pixel against each metric, with the frontier."""
    charts = [
        scatter(
            label(name),
            points,
            xs=[Axis(key=RATE, title="bits a pixel")],
            ys=[quality_axis(name, direction)],
        )
        for name, direction in metrics.items()
        if any(point.values.get(name) is not None for point in points)
    ]
    text = (
        "A line joins the frontier: points for which no other one is better at no more bits. Bars "
        "go from the least to the greatest seed. Hollow points use hardly any of their codes."
    )
    if not charts:
        return [Text(text="No job has figures yet.")]
    if any(point.values[RATE] is None for point in points):
        text += " Points of continuous codebooks have no rate, and are not here."
    return [Text(text=text), Charts(title="", charts=charts)]


def usage_charts(points: Sequence[Point], plain: Sequence[Plain]) -> list[Block]:
    """Draw the share of ids in use against the rate, and against each axis of numbers."""
    keys = dict.fromkeys(
        key for point in plain for key, value in point["values"].items() if is_number(value)
    )
    xs = [Axis(key=key, title=key) for key in sorted(keys, key=lambda key: "size" not in key)]
    xs.append(Axis(key=RATE, title="bits a pixel"))
    ys = [Axis(key=USAGE, title="share of the ids in use")]
    if all(point.values.get(USAGE) is None for point in points):
        return [Text(text="No job has told how its ids are used.")]
    return [Charts(title="", charts=[scatter("Usage", points, xs=xs, ys=ys)])]


def cost_charts(points: Sequence[Point], metrics: Mapping[str, str]) -> list[Block]:
    """Draw what points cost against what they reach; which cost is chosen on the page."""
    xs = [
        Axis(key=key, title=title)
        for key, title in COSTS.items()
        if any(point.values.get(key) is not None for point in points)
    ]
    charts = [
        scatter(f"{label(name)} by cost", points, xs=xs, ys=[quality_axis(name, direction)])
        for name, direction in metrics.items()
        if any(point.values.get(name) is not None for point in points)
    ]
    if not xs or not charts:
        return [Text(text="No job has told what it cost.")]
    return [Charts(title="", charts=charts)]


def points_table(points: Sequence[Plain], metrics: Mapping[str, str]) -> Table:
    """List the points, with the metrics for which each is on the frontier."""
    rows = []
    has_collapsed = any(point.get("collapsed") for point in points)
    for point in points:
        frontier = list(point.get("frontier") or [])
        found = point.get("metrics") or {}
        rows.append(
            [
                word(point.get("label")),
                word(", ".join(map(label, frontier)) or None, tone="good" if frontier else "quiet"),
                *([collapse(point)] if has_collapsed else []),
                number(point.get(RATE), decimals=4),
                *(spread(found.get(name), decimals=4) for name in metrics),
                spread(point.get(USAGE), decimals=3),
                spread(point.get("train_seconds"), decimals=1),
                number(point.get("gflops")),
                number(point.get("parameters")),
                number(len(point.get("jobs") or [])),
            ]
        )
    heads = ["point", "frontier of", *(["collapsed"] if has_collapsed else []), "bits/px"]
    heads += [*map(label, metrics), "usage"]
    heads += ["training (s)", "GFLOPs", "parameters", "seeds"]
    note = "Means over seeds, with the least and the greatest."
    return Table(caption="Points", heads=heads, rows=rows, search="point", notes=[note])


def collapse(point: Plain) -> Cell:
    """Say of how many seeds of a point hardly any code is used."""
    count, of = point.get("collapsed") or 0, len(point.get("jobs") or [])
    return word(f"{count} of {of}" if count else None, tone="bad")


def jobs_table(
    folder: Path, sweep: Plain, jobs: Sequence[Plain], metrics: Mapping[str, str]
) -> Table:
    """List all jobs, with links to their pages."""
    axes, rows = list(sweep["axes"]), []
    for job in jobs:
        values, found = job.get("values") or {}, job.get("metrics") or {}
        codebook = job.get("codebook") or {}
        state = str(job.get("state"))
        rows.append(
            [
                word(job.get("name"), href=link(folder, job)),
                word(state, tone=TONES.get(state, "quiet")),
                word(shareable(str(job.get("reason") or ""))),
                *(axis_cell(values.get(key)) for key in axes),
                number(job.get(RATE), decimals=4),
                number(job.get("tokens_per_image")),
                *(number(found.get(name), decimals=4) for name in metrics),
                number(codebook.get("usage"), decimals=3),
                number(codebook.get("perplexity"), decimals=1),
                number(job.get("parameters")),
                number(job.get("gflops")),
                number(job.get("train_seconds"), decimals=1),
            ]
        )
    heads = ["job", "state", "reason", *axes, "bits/px", "tokens", *map(label, metrics), "usage"]
    heads += ["perplexity", "parameters", "GFLOPs", "training (s)"]
    note = "Names lead to the pages of the runs beside this file; they are not there in a mail."
    return Table(caption="Jobs", heads=heads, rows=rows, search="job", notes=[note])


def axis_cell(value: object) -> Cell:
    """Make a cell of a value of an axis."""
    if is_number(value) and isinstance(value, int | float):
        return number(value)
    return word(value)


def link(folder: Path, job: Plain) -> str:
    """Return where the page of a job's run is, relative to the sweep; nothing if it is not."""
    run = str(job.get("run_dir") or "")
    if not run or not (folder / run / "report.html").is_file():
        return ""
    return quote(f"{run}/report.html")


def pictures(
    folder: Path, points: Sequence[Plain], jobs: Sequence[Plain], album: Album
) -> list[Block]:
    """Show the same pictures as each point reconstructs them."""
    homes = {job.get("name"): folder / str(job.get("run_dir") or "") for job in jobs}
    rows: dict[str, tuple[list[Picture], list[Picture]]] = {}
    # Those on a frontier come first, if there is no room for all.
    for point in sorted(points, key=lambda each: not each.get("frontier")):
        strips = (last_strip(homes.get(name)) for name in point.get("jobs") or [])
        strip = next((found for found in strips if found is not None), None)
        if strip is not None:
            rows[str(point.get("label"))] = strip
    if not rows:
        return []
    order = [str(point.get("label")) for point in points]
    count = min(*(len(made) for _, made in rows.values()), MOST_PICTURES)
    originals = max((originals for originals, _ in rows.values()), key=lambda row: row[0].shape[0])
    shelf = album.shelf(PICTURE_BYTES)
    items: list[Item] = []
    for place in range(count):
        looks = [originals[place], *(made[place] for _, made in rows.values())]
        numbers = shelf.add(looks)
        if numbers is None and items:
            break
        if numbers is None:  # not even one picture of all points fits: as many points as do
            numbers = first_that_fit(looks, album)
        names = ["original", *rows][: len(numbers)]
        layers = [Layer(name=n, picture=p) for n, p in zip(names, numbers, strict=True)]
        layers.sort(key=lambda layer: order.index(layer.name) if layer.name in order else -1)
        items.append(Item(name=f"picture {place + 1}", layers=layers))
        if len(numbers) < len(looks):
            break
    return viewer_blocks(items, len(rows), len(points), count)


def viewer_blocks(items: Sequence[Item], shown: int, total: int, count: int) -> list[Block]:
    """Make the viewer, with a sentence on what is not in it."""
    shown = min(shown, len(items[0].layers) - 1)
    if shown < 1:
        return [Text(text="The pictures are too large for a page that can be mailed.")]
    text = "The same pictures of the validation at the last step of each point, of one seed."
    if len(items) < count:
        text += f" {len(items)} of {count} pictures are here, so that the page stays small."
    if shown < total:
        text += f" {shown} of {total} points have pictures here, those on a frontier first."
    right = items[0].layers[1].name
    return [Text(text=text), Viewer(label="Pictures of each point", items=items, right=right)]


def first_that_fit(looks: Sequence[Picture], album: Album) -> list[int]:
    """Take pictures in, one by one, until there is no more room."""
    shelf, numbers = album.shelf(PICTURE_BYTES), list[int]()
    for look in looks:
        found = shelf.add([look])
        if found is None:
            break
        numbers += found
    return numbers


def last_strip(run: Path | None) -> tuple[list[Picture], list[Picture]] | None:
    """Read originals and reconstructions of a run's last validation; None without any."""
    files = sorted((run / "images").glob("step_*.png")) if run is not None else []
    strip = read_picture(files[-1]) if files else None
    if strip is None or strip.shape[0] < 2 or strip.shape[1] < strip.shape[0] // 2:
        return None
    return cut_strip(strip)
