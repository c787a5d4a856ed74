"""The page of an evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vqtrain.data.media import media_of
from vqtrain.data.remote.urls import shareable
from vqtrain.drawing.panels import panel_size
from vqtrain.evaluation.results import (
    BaselineResult,
    EvaluationResult,
    ImageValues,
    TokenizerResult,
    read_evaluation,
    read_image_values,
)
from vqtrain.evaluation.side_by_side import panels_of
from vqtrain.evaluation.tables import JSON_FILE, rate_head, size_head
from vqtrain.metrics.parts.declarations import declaration
from vqtrain.reports.blocks import (
    Block,
    Cell,
    Charts,
    Facts,
    Item,
    Page,
    Table,
    Text,
    figure,
    number,
    sections_of,
    table,
    word,
)
from vqtrain.reports.charts import Axis, Line, Point, curves, scatter
from vqtrain.reports.codebook import code_blocks, codebook_blocks
from vqtrain.reports.cost import cost_blocks
from vqtrain.reports.images import (
    IDS,
    ORIGINAL,
    RECONSTRUCTION,
    Budget,
    PageImages,
    read_image,
)
from vqtrain.reports.players import Played, players
from vqtrain.reports.series import label, metric_axis
from vqtrain.shapes import ImageSize, by, sample_size_of, typed

IMAGE_BYTES = 3_000_000
# Of the clips or sounds that play.
PLAYED_BYTES = 1_500_000
BINS, MOST_NAMED = 40, 3
RATE = "bits_per_pixel"
BASELINES = {
    "jpeg": "JPEG",
    "webp": "WebP",
    "down_up": "down-sampling",
    "first_frame": "first frame",
}
NOTES = {
    "jpeg": "JPEG and WebP encode each image at the rate nearest to that of the tokenizer; "
    "down-sampling keeps one pixel per token.",
    "first_frame": "The baseline repeats the first frame of each clip, uncompressed: that frame "
    "has the best value there is, a PSNR of 100 dB.",
}
QUANTILES = {"min": 0, "5th percentile": 0.05, "median": 0.5, "95th percentile": 0.95, "max": 1}


def is_evaluation(path: Path) -> bool:
    """Say whether a folder is that of an evaluation."""
    return (path / JSON_FILE).is_file()


def evaluation_page(folder: Path) -> Page:
    """Make the page of an evaluation.

    Raises:
        ConfigError: If its results cannot be read.
    """
    result = read_evaluation(folder)
    found = result.tokenizers
    values = {each.name: read_image_values(folder / each.per_image) for each in found}
    images = PageImages()
    names = ", ".join(each.name for each in found)
    codebooks = {
        each.name if len(found) > 1 else "": each.codebook for each in found if each.codebook
    }
    folders = {
        name: (folder / each.per_image).parent
        for name, each in zip(codebooks, (each for each in found if each.codebook), strict=True)
    }
    examples = example_blocks(folder, found, values, images)
    sections: dict[str, tuple[str, Sequence[Block]]] = {
        "results": ("Results", [results_table(found)]),
        "rate": ("Rate and distortion", rate_charts(found)),
        "spread": ("Spread over images", distributions(values)),
        "frames": ("Frame by frame", frame_charts(found)),
        "codebook": ("Codebook usage", codebook_blocks(codebooks) if codebooks else []),
        "ids": ("Single ids", code_blocks(codebooks, folders)),
        "examples": ("Worst and best images", examples),
        "cost": ("Cost", cost_blocks(found)),
        "protocols": ("Protocols", protocols(result)),
    }
    count = result.images.get("count")
    shown = f"{count:,} images" if isinstance(count, int) else "images"
    return Page(
        title=names if len(found) <= MOST_NAMED else f"{len(found)} tokenizers",
        kind="Evaluation",
        subtitle=f"{len(found)} tokenizer{'s' * (len(found) > 1)} on {shown} of "
        f"{shareable(str(result.images.get('source')))}",
        sections=sections_of(sections),
        images=images.uris,
    )


def baselines_of(tokenizer: TokenizerResult, count: int) -> list[tuple[str, str, BaselineResult]]:
    """List the baselines of one of ``count`` tokenizers: name of the row, kind, result."""
    of = f", for {tokenizer.name}" if count > 1 else ""
    kinds = [(BASELINES.get(word, word), found) for word, found in tokenizer.baselines.items()]
    return [(f"{kind}{rate_of(found)}{of}", kind, found) for kind, found in kinds]


def rate_of(baseline: BaselineResult) -> str:
    """Say the rate of a baseline, which is not always that of its tokenizer."""
    rate = baseline.bits_per_pixel
    return "" if rate is None else f" at {rate:.2f} bits/px"  # sounds have none


def metric_names(tokenizers: Sequence[TokenizerResult]) -> list[str]:
    """List the metrics of all tokenizers."""
    return list(dict.fromkeys(name for each in tokenizers for name in each.metrics))


def size_cell(size: ImageSize) -> Cell:
    """Make a cell of the side of squares, or of the sizes of axes."""
    if isinstance(size, int):
        return number(size)
    return word(typed(size) if len(size) == 2 else by(size))


def speed_of(tokenizer: TokenizerResult) -> dict[str, Cell]:
    """Give the rate of clips and sounds in time, if it is known."""
    speed = tokenizer.kbit_per_second
    return {} if speed is None else {"kbit/s": number(speed, decimals=2)}


def results_table(tokenizers: Sequence[TokenizerResult]) -> Table:
    """Make the table of tokenizers and baselines."""
    names = metric_names(tokenizers)
    rows = []
    for each in tokenizers:
        use = each.codebook.figures if each.codebook else {}
        size = sample_size_of(each.image_size)
        rows.append(
            {
                "name": word(each.name),
                "kind": word("tokenizer"),
                size_head(size): size_cell(each.image_size),
                "tokens": number(each.tokens_per_image or None),
                rate_head(size): number(each.bits_per_pixel, decimals=4),
                **(
                    {} if each.kbit_per_second is None else {"kbit/s": number(each.kbit_per_second)}
                ),
                **{label(name): number(each.metrics.get(name), decimals=4) for name in names},
                "usage": number(use.get("usage", use.get("usage@tokens")), decimals=4),
                "perplexity": number(use.get("perplexity"), decimals=1),
            }
        )
        rows += [
            {
                "name": word(name, tone="quiet"),
                "kind": word("baseline", tone="quiet"),
                size_head(size): size_cell(each.image_size),
                rate_head(size): number(found.bits_per_pixel, decimals=4),
                **{label(name): number(found.metrics.get(name), decimals=4) for name in names},
            }
            for name, _, found in baselines_of(each, len(tokenizers))
        ]
    words = {word for each in tokenizers for word in each.baselines}
    notes = [note for word, note in NOTES.items() if word in words]
    return table("Tokenizers and baselines", rows, notes=notes)


def rate_charts(tokenizers: Sequence[TokenizerResult]) -> list[Block]:
    """Draw bits per pixel against each metric."""
    found: list[tuple[str, str, TokenizerResult | BaselineResult]] = [
        (each.name, each.name, each) for each in tokenizers
    ]
    found += [row for each in tokenizers for row in baselines_of(each, len(tokenizers))]
    points = [
        Point(name=name, group=group, values={RATE: each.bits_per_pixel, **each.metrics})
        for name, group, each in found
        if each.bits_per_pixel is not None
    ]
    is_sound = any(len(sample_size_of(each.image_size)) == 1 for each in tokenizers)
    rate = Axis(key=RATE, title="bits per value" if is_sound else "bits per pixel")
    charts = [
        scatter(label(name), points, xs=[rate], ys=[metric_axis(name)])
        for name in metric_names(tokenizers)
        if points
    ]
    blocks: list[Block] = [Charts(title="", charts=charts)] if charts else []
    if any(each.bits_per_pixel is None for each in tokenizers):
        text = "Tokenizers with continuous latents have no rate, so they are not shown."
        blocks.append(Text(text=text, tone="note"))
    return blocks


def distributions(values: Mapping[str, ImageValues]) -> list[Block]:
    """Draw the spread of the values per image, of tokenizers and baselines."""
    # With several tokenizers, baselines would hide them.
    prefixes = {"": "", **({} if len(values) > 1 else {f"{k}/": v for k, v in BASELINES.items()})}
    columns: dict[str, dict[str, Float64[np.ndarray, " n"]]] = {}
    rows = []
    for name, found in values.items():
        for metric in (key for key in found.values if "/" not in key):
            columns.setdefault(metric, {}).update(
                {
                    shown or name: found.values[f"{prefix}{metric}"]
                    for prefix, shown in prefixes.items()
                    if f"{prefix}{metric}" in found.values
                }
            )
            if len(own := found.values[metric]):
                quantiles = {
                    head: number(float(np.quantile(own, share)), decimals=4)
                    for head, share in QUANTILES.items()
                }
                rows.append({"tokenizer": word(name), "metric": word(label(metric)), **quantiles})
    if not columns:
        return [Text(text="The file with the values of each image is missing.", tone="note")]
    charts = [distribution(metric, found) for metric, found in columns.items()]
    return [Charts(title="", charts=charts), table("Spread over images", rows)]


def distribution(
    metric: str, columns: Mapping[str, Float64[np.ndarray, " n"]]
) -> dict[str, object]:
    """Draw histograms with the same bins."""
    finite = {name: column[np.isfinite(column)] for name, column in columns.items()}
    edges = np.histogram_bin_edges(np.concatenate([*finite.values()]), bins=BINS)
    lines = []
    for name, column in finite.items():
        counts, _ = np.histogram(column, bins=edges)
        shares = np.append(100 * counts / max(1, len(column)), 0.0)
        lines.append(Line(name=name, x=edges, y=shares))
    y = "share of the images (%)"
    return curves(label(metric), lines, x=declaration(metric).axis, y=y, is_stepped=True)


def frame_charts(tokenizers: Sequence[TokenizerResult]) -> list[Block]:
    """Draw the means of metrics at each frame of a clip; none of other samples."""
    shown: list[tuple[str, TokenizerResult | BaselineResult]] = [
        (each.name, each) for each in tokenizers
    ]
    for each in tokenizers:
        shown += [(name, found) for name, _, found in baselines_of(each, len(tokenizers))]
    charts = []
    for metric in dict.fromkeys(name for each in tokenizers for name in each.by_frame):
        columns = {
            name: np.array(found.by_frame[metric], dtype=np.float64)
            for name, found in shown
            if metric in found.by_frame
        }
        lines = [Line(name=n, x=np.arange(float(len(y))), y=y) for n, y in columns.items()]
        charts.append(curves(label(metric), lines, x="frame", y=declaration(metric).axis))
    return [Charts(title="", charts=charts)] if charts else []


def example_blocks(
    folder: Path,
    tokenizers: Sequence[TokenizerResult],
    values: Mapping[str, ImageValues],
    images: PageImages,
) -> list[Block]:
    """Show the worst and the best images of each tokenizer."""
    blocks: list[Block] = []
    for each in tokenizers:
        home = (folder / each.per_image).parent
        for side in ("worst", "best"):
            budget = Budget(images, IMAGE_BYTES // (2 * len(tokenizers)))
            captions = captions_of(values[each.name], side)
            size = sample_size_of(each.image_size)
            items = items_of(home / side, size, captions, budget)
            of = f" of {each.name}" if len(tokenizers) > 1 else ""
            name = f"{side.capitalize()} {media_of(len(size)).noun}s{of}"
            blocks += budget.viewer(name, items, right=RECONSTRUCTION)
            limit = PLAYED_BYTES // (2 * len(tokenizers))
            blocks += players(name, played_in(home / side, captions), limit=limit)
    return blocks or [Text(text="The folders of images are missing.", tone="note")]


def captions_of(found: ImageValues, side: str) -> list[tuple[str, str]]:
    """Name images from the worst or the best on, with their value in the first metric."""
    metric = next((name for name in found.values if "/" not in name), None)
    if metric is None or len(found.keys) != len(found.values[metric]):
        return []
    order = np.argsort(found.values[metric], kind="stable")
    if declaration(metric).lower_is_better == (side == "worst"):
        order = order[::-1]
    unit = f" {declaration(metric).unit or label(metric)}"
    return [(found.keys[n], f"{figure(found.values[metric][n], decimals=2)}{unit}") for n in order]


def items_of(
    folder: Path, size: Sequence[int], captions: Sequence[tuple[str, str]], budget: Budget
) -> list[Item]:
    """Split the pictures of a folder into their panels."""
    items, panel = [], panel_size(size)
    for place, file in enumerate(sorted(folder.glob("*.png"))):
        image = read_image(file)
        panels = None if image is None else panels_of(image, panel, is_stacked=len(size) != 2)
        if panels is not None:
            name, caption = captions[place] if place < len(captions) else (file.stem, "")
            versions = dict(zip((ORIGINAL, RECONSTRUCTION, IDS), panels, strict=False))
            items += budget.item(name, versions, caption=caption)
    return items


def played_in(folder: Path, captions: Sequence[tuple[str, str]]) -> list[Played]:
    """Find what plays of the samples of a folder."""
    found = []
    for place, file in enumerate(sorted(folder.glob("*.png"))):
        name, caption = captions[place] if place < len(captions) else (file.stem, "")
        ends = (".mp4", ".original.wav", ".reconstruction.wav")
        files = {end: own for end in ends if (own := file.with_suffix(end)).is_file()}
        contents = {end: own.read_bytes() for end, own in files.items()}
        found.append(Played(name=name, caption=caption, files=contents))
    return found


def protocols(result: EvaluationResult) -> list[Block]:
    """Say how each metric is defined, on which images, and which could not be used."""
    facts = [
        [(name.replace("_", " "), shareable(str(value))) for name, value in group.items()]
        for group in (result.images, result.settings)
    ]
    definitions = [
        {"tokenizer": word(each.name), "metric": word(label(metric)), "key": word(key)}
        | {"value": word(value)}
        for each in result.tokenizers
        for metric, rule in each.protocols.items()
        for key, value in rule.items()
    ]
    skipped = [
        {"tokenizer": word(each.name), "image": word(fault.key or fault.shard)}
        | {"reason": word(fault.reason)}
        for each in result.tokenizers
        for fault in each.skipped
    ]
    tables = [
        table("How each metric is computed", definitions, search="metric, key or value"),
        table("Skipped images", skipped),
    ]
    return [*(Facts(rows=rows) for rows in facts), *(each for each in tables if each.rows)]
