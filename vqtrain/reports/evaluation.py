"""The page of an evaluation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from vqtrain.data.servers import shareable
from vqtrain.errors import ConfigError
from vqtrain.evaluation.measure import RATE
from vqtrain.evaluation.metrics import is_lower_better
from vqtrain.evaluation.side_by_side import CAPTION_HEIGHT, MARGIN
from vqtrain.evaluation.tables import JSON_FILE
from vqtrain.reports.blocks import (
    Block,
    Cell,
    Charts,
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
from vqtrain.reports.charts import Axis, Line, Point, curves, scatter
from vqtrain.reports.cost import cost_blocks
from vqtrain.reports.histogram import codebook_blocks
from vqtrain.reports.pictures import Album, Picture, Shelf, read_picture
from vqtrain.reports.series import axis_title, label

LOOKS = ("original", "reconstruction", "ids")
PICTURE_BYTES = 3_000_000
BINS, MOST_NAMED = 40, 3
BASELINES = {"jpeg": "JPEG", "webp": "WebP", "down_up": "down-sampling"}

Entry = Mapping[str, Any]


def is_evaluation(path: Path) -> bool:
    """Say whether a folder is that of an evaluation."""
    return (path / JSON_FILE).is_file()


def evaluation_page(folder: Path) -> Page:
    """Make the page of an evaluation.

    Raises:
        ConfigError: If its figures cannot be read.
    """
    report = read_report(folder)
    entries: list[Entry] = report["tokenizers"]
    values = {str(entry.get("name")): per_image(folder, entry) for entry in entries}
    album = Album()
    names = ", ".join(str(entry.get("name")) for entry in entries)
    title = names if len(entries) <= MOST_NAMED else f"{len(entries)} tokenizers"
    images = report.get("images") or {}
    sections = [
        Section(key="figures", title="Figures", blocks=figures(entries)),
        Section(key="rate", title="Rate and distortion", blocks=rate_charts(entries)),
        Section(key="images", title="Single images", blocks=distributions(values)),
    ]
    codebooks = [
        (str(entry.get("name")) if len(entries) > 1 else "", entry["codebook"])
        for entry in entries
        if entry.get("codebook")
    ]
    if codebooks:
        sections.append(
            Section(key="codebook", title="Use of the codebook", blocks=codebook_blocks(codebooks))
        )
    sections += [
        Section(key="pictures", title="Pictures", blocks=pictures(folder, entries, values, album)),
        Section(key="cost", title="Cost", blocks=cost_blocks(entries)),
        Section(key="protocols", title="Protocols", blocks=protocols(report, entries)),
    ]
    count = images.get("count")
    shown = f"{count:,} images" if isinstance(count, int) else "images"
    return Page(
        title=title,
        kind="Evaluation",
        subtitle=f"{len(entries)} tokenizer{'s' * (len(entries) > 1)} on {shown} of "
        f"{shareable(str(images.get('source')))}",
        sections=sections,
        pictures=album.uris,
    )


def read_report(folder: Path) -> dict[str, Any]:
    """Read the figures of an evaluation.

    Raises:
        ConfigError: If that cannot be done.
    """
    file = folder / JSON_FILE
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    tokenizers = report.get("tokenizers") if isinstance(report, dict) else None
    if not isinstance(tokenizers, list) or not tokenizers:
        raise ConfigError(f"cannot read {file}: it lists no tokenizers")
    return dict(report)


def baselines_of(entry: Entry) -> dict[str, Entry]:
    """Return the baselines of a tokenizer, by the name under which people know them."""
    found = entry.get("baselines") or {}
    return {BASELINES.get(each, each): figures for each, figures in found.items()}


def metric_names(entries: Sequence[Entry]) -> list[str]:
    """List the metrics of all tokenizers."""
    return list(dict.fromkeys(name for entry in entries for name in entry.get("metrics") or {}))


def figures(entries: Sequence[Entry]) -> list[Block]:
    """Make the table of tokenizers and baselines."""
    names = metric_names(entries)
    rows: list[list[Cell]] = []
    for entry in entries:
        codebook = entry.get("codebook") or {}
        rows.append(
            [
                word(entry.get("name")),
                word("tokenizer"),
                number(entry.get("image_size")),
                number(entry.get("tokens_per_image") or None),
                number(entry.get(RATE), decimals=4),
                *(number((entry.get("metrics") or {}).get(name), decimals=4) for name in names),
                number(codebook.get("usage", codebook.get("usage@tokens")), decimals=4),
                number(codebook.get("perplexity"), decimals=1),
            ]
        )
        for each, found in baselines_of(entry).items():
            beside = f" beside {entry.get('name')}" if len(entries) > 1 else ""
            metrics = found.get("metrics") or {}
            rows.append(
                [
                    word(f"{each}{beside}", tone="quiet"),
                    word("baseline", tone="quiet"),
                    number(entry.get("image_size")),
                    number(None),
                    number(found.get(RATE), decimals=4),
                    *(number(metrics.get(name), decimals=4) for name in names),
                    number(None),
                    number(None),
                ]
            )
    heads = ["name", "kind", "px", "tokens", "bits/px", *map(label, names), "usage", "perplexity"]
    note = (
        "JPEG and WebP code each picture at the rate of the tokenizer, as near as they come to it; "
        "down-sampling keeps one pixel for each token."
    )
    return [Table(caption="Tokenizers and baselines", heads=heads, rows=rows, notes=[note])]


def rate_charts(entries: Sequence[Entry]) -> list[Block]:
    """Draw bits a pixel against each metric."""
    points = []
    for entry in entries:
        name = str(entry.get("name"))
        points.append(_point(name, name, entry))
        points += [
            _point(f"{each} beside {name}" if len(entries) > 1 else each, each, found)
            for each, found in baselines_of(entry).items()
        ]
    known = [point for point in points if point.values[RATE] is not None]
    known.sort(key=lambda point: point.group in BASELINES.values())
    charts = [
        scatter(label(name), known, xs=[Axis(key=RATE, title="bits a pixel")], ys=[axis_of(name)])
        for name in metric_names(entries)
    ]
    blocks: list[Block] = [Charts(title="", charts=charts)] if known else []
    if len(known) < len(points):
        text = "Tokenizers with continuous latents have no rate, and so no point here."
        blocks.append(Text(text=text, tone="note"))
    return blocks


def axis_of(metric: str) -> Axis:
    """Make the axis of a metric, which says in which direction it is better."""
    better = "lower" if is_lower_better(metric) else "higher"
    return Axis(key=metric, title=axis_title(metric), better=better)


def _point(name: str, group: str, found: Entry) -> Point:
    return Point(name=name, group=group, values={RATE: found.get(RATE), **found["metrics"]})


Values = Mapping[str, Float64[np.ndarray, " n"]]


def per_image(folder: Path, entry: Entry) -> tuple[list[str], Values]:
    """Read names and values of single images; none if that cannot be done."""
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(folder / str(entry.get("per_image")))
    except (OSError, ArrowException):
        return [], {}
    columns = table.to_pydict()
    keys = [str(key) for key in columns.pop("key", [])]
    values = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
    return keys, values


def distributions(values: Mapping[str, tuple[list[str], Values]]) -> list[Block]:
    """Draw how the values of single images are spread, of tokenizers and baselines."""
    metrics = dict.fromkeys(
        name for _, columns in values.values() for name in columns if "/" not in name
    )
    charts = []
    for metric in metrics:
        columns: dict[str, Float64[np.ndarray, " n"]] = {}
        for name, (_, found) in values.items():
            if metric in found:
                columns[name] = found[metric]
            if len(values) == 1:  # of several tokenizers, the baselines would hide them
                for each, shown in BASELINES.items():
                    if f"{each}/{metric}" in found:
                        columns[shown] = found[f"{each}/{metric}"]
        charts.append(distribution(metric, columns))
    if not charts:
        return [Text(text="The file with values of single images is not here.", tone="note")]
    rows = [
        [
            word(name),
            word(label(metric)),
            *(
                number(float(np.quantile(found[metric], share)), decimals=4)
                for share in (0, 0.05, 0.5, 0.95, 1)
            ),
        ]
        for name, (_, found) in values.items()
        for metric in metrics
        if metric in found and len(found[metric])
    ]
    heads = ["tokenizer", "metric", "least", "5 % below", "median", "95 % below", "greatest"]
    return [
        Charts(title="", charts=charts),
        Table(caption="Spread over images", heads=heads, rows=rows),
    ]


def distribution(
    metric: str, columns: Mapping[str, Float64[np.ndarray, " n"]]
) -> dict[str, object]:
    """Draw histograms with the same bins."""
    finite = {name: column[np.isfinite(column)] for name, column in columns.items()}
    everything = np.concatenate([*finite.values(), np.zeros(0)])
    low, high = (everything.min(), everything.max()) if len(everything) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    lines = []
    for name, column in finite.items():
        counts, _ = np.histogram(column, bins=edges)
        shares = np.append(100 * counts / max(1, len(column)), 0.0)
        lines.append(Line(name=name, x=edges, y=shares))
    return curves(
        label(metric), lines, x=axis_title(metric), y="share of the images (%)", is_stepped=True
    )


def pictures(
    folder: Path,
    entries: Sequence[Entry],
    values: Mapping[str, tuple[list[str], Values]],
    album: Album,
) -> list[Block]:
    """Show the worst and the best pictures of each tokenizer."""
    blocks: list[Block] = []
    room = PICTURE_BYTES // (2 * len(entries))
    for entry in entries:
        name = str(entry.get("name"))
        home = (folder / str(entry.get("per_image"))).parent
        for side in ("worst", "best"):
            shelf = album.shelf(room)
            captions = captions_of(*values[name], side)
            items = items_of(home / side, int(entry.get("image_size") or 0), captions, shelf)
            title = f"{side.capitalize()} pictures"
            if len(entries) > 1:
                title += f" of {name}"
            if items:
                blocks.append(Viewer(label=title, items=items, right=LOOKS[1]))
            if shelf.left_out:
                text = f"{title}: {shelf.left_out} are left out, so that the page stays small."
                blocks.append(Text(text=text, tone="note"))
    return blocks or [Text(text="The folders of pictures are not here.", tone="note")]


def captions_of(keys: Sequence[str], columns: Values, side: str) -> list[tuple[str, str]]:
    """Name the images in the order of their pictures, with their value in the first metric."""
    metric = next((name for name in columns if "/" not in name), None)
    if metric is None or len(keys) != len(columns[metric]):
        return []
    order = np.argsort(columns[metric], kind="stable")
    if is_lower_better(metric) == (side == "worst"):
        order = order[::-1]
    unit = " dB" if metric == "psnr" else f" {label(metric)}"
    return [(keys[place], f"{figure(columns[metric][place], decimals=2)}{unit}") for place in order]


def items_of(
    folder: Path, side: int, captions: Sequence[tuple[str, str]], shelf: Shelf
) -> list[Item]:
    """Cut the pictures of a folder into their panels."""
    items = []
    for place, file in enumerate(sorted(folder.glob("*.png"))):
        picture = read_picture(file)
        panels = None if picture is None else cut_panels(picture, side)
        if panels is None:
            continue
        numbers = shelf.add(panels)
        if numbers is None:
            continue
        name, caption = captions[place] if place < len(captions) else (file.stem, "")
        layers = [
            Layer(name=look, picture=picture, caption=caption if look == LOOKS[1] else "")
            for look, picture in zip(LOOKS, numbers, strict=False)
        ]
        items.append(Item(name=name, layers=layers, caption=caption))
    return items


def cut_panels(picture: Picture, side: int) -> list[Picture] | None:
    """Take squares out of what ``side_by_side`` has put together; None if it is another picture."""
    height, width, _ = picture.shape
    if side < 1 or height != side + MARGIN + CAPTION_HEIGHT or (width - MARGIN) % (side + MARGIN):
        return None
    lefts = range(MARGIN, width - MARGIN, side + MARGIN)
    return [picture[MARGIN : MARGIN + side, left : left + side] for left in lefts]


def protocols(report: Mapping[str, Any], entries: Sequence[Entry]) -> list[Block]:
    """Say how each number came about, on which images, and which could not be used."""
    blocks: list[Block] = []
    for group in ("images", "settings"):
        facts = report.get(group) or {}
        rows = [
            (str(name).replace("_", " "), shareable(str(value))) for name, value in facts.items()
        ]
        blocks.append(Facts(rows=rows))
    rows_of = [
        [word(entry.get("name")), word(label(metric)), word(key), word(value)]
        for entry in entries
        for metric, rule in (entry.get("protocols") or {}).items()
        for key, value in rule.items()
    ]
    heads = ["tokenizer", "metric", "rule", "value"]
    blocks.append(Table(caption="How numbers came about", heads=heads, rows=rows_of, search="rule"))
    faults = [
        [
            word(entry.get("name")),
            word(fault.get("key") or fault.get("shard")),
            word(fault["reason"]),
        ]
        for entry in entries
        for fault in entry.get("passed_over") or []
    ]
    if faults:
        heads = ["tokenizer", "image", "reason"]
        blocks.append(Table(caption="Passed over", heads=heads, rows=faults))
    return blocks
