"""The page of a leaderboard."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from vqtrain.evaluation.leaderboard import DIGITS, FAILED, Board, Row
from vqtrain.evaluation.results import EvaluationResult, TokenizerResult
from vqtrain.metrics.parts.declarations import declaration
from vqtrain.reports.blocks import (
    Block,
    Cell,
    Charts,
    Facts,
    Item,
    Layer,
    Page,
    Table,
    Text,
    Viewer,
    number,
    sections_of,
    table,
    word,
)
from vqtrain.reports.charts import Axis, Point, scatter
from vqtrain.reports.cost import cost_blocks
from vqtrain.reports.evaluation import RATE, baselines_of, protocols
from vqtrain.reports.images import ORIGINAL
from vqtrain.reports.series import label, metric_axis
from vqtrain.shapes import by
from vqtrain.sweeps.results import ahead

COSTS = {
    "gflops": "GFLOPs to encode and decode an image",
    "parameters": "parameters",
    "milliseconds": "median to encode and decode an image (ms)",
}


@final
@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The same images as all tokenizers reconstruct them, as files.

    Attributes:
        names: Of the images.
        originals: Their files, relative to the page.
        reconstructions: By name of a row, its files, and what is said of each.
    """

    names: Sequence[str]
    originals: Sequence[str]
    reconstructions: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def files(self) -> list[str]:
        """All files."""
        made = (file for each in self.reconstructions.values() for file, _ in each)
        return [*self.originals, *dict.fromkeys(made)]


def leaderboard_page(board: Board, pictures: Pictures) -> Page:
    """Make the page."""
    frontiers = frontiers_of(board)
    first = [replace(found, name="all", skipped=()) for _, found in board.measured[:1]]
    named = [replace(found, name=row.name) for row, found in board.measured]
    sections: dict[str, tuple[str, Sequence[Block]]] = {
        "summary": ("Summary", summary(board)),
        "results": ("Results", [results_table(board, frontiers)] if named else []),
        "failed": ("Without figures", without_figures(board)),
        "rate": ("Rate and quality", rate_charts(board, frontiers)),
        "cost": ("Cost", [*cost_charts(board), *(cost_blocks(named) if named else [])]),
        "reconstructions": ("Reconstructions", reconstructions(board, pictures)),
        "commands": ("Commands", [commands_table(board)]),
        "protocols": ("Protocol", protocol_blocks(board, first)),
    }
    count = len(board.rows)
    return Page(
        title=board.title,
        kind="Leaderboard",
        subtitle=f"{count} tokenizer{'s' * (count != 1)} on {board.images['count']:,} images of "
        f"{board.images['source']}",
        sections=sections_of(sections),
        images=pictures.files,
        has_files=True,
    )


def summary(board: Board) -> list[Block]:
    """Count the rows, and say what all have in common."""
    states = Counter(row.state for row in board.rows)
    facts = [
        *((state, f"{count:,}") for state, count in states.items()),
        ("images", f"{board.images['count']:,}"),
        ("px", board.protocol["image_size"]),
    ]
    text = (
        "All tokenizers are measured on the same images by the same command. The first metric "
        "gives the order; click on the head of a column to sort by it."
    )
    return [Facts(rows=facts, is_large=True), Text(text=text)]


def frontiers_of(board: Board) -> dict[str, list[str]]:
    """List by name of a row the metrics in which no other is better at the same or a lower rate."""
    found: dict[str, list[str]] = {row.name: [] for row in board.rows}
    for name in board.metrics:
        sign = -1.0 if declaration(name).lower_is_better else 1.0
        rated = {
            place: (each.bits_per_pixel, sign * value)
            for place, (_, each) in enumerate(board.measured)
            if each.bits_per_pixel is not None and (value := each.metrics.get(name)) is not None
        }
        for place in ahead(rated):
            found[board.measured[place][0].name].append(name)
    return found


def results_table(board: Board, frontiers: Mapping[str, Sequence[str]]) -> Table:
    """Make the table of all rows with figures."""
    has_notes = any(row.note for row, _ in board.measured)
    has_skipped = any(found.skipped for _, found in board.measured)
    best = {name: best_of(board, name) for name in board.metrics}
    rows = []
    for row, found in board.measured:
        network = row.network
        assert network is not None, "what was measured could be read"
        factor = network.downsampling
        skipped = {"skipped images": number(len(found.skipped))} if has_skipped else {}
        rows.append(
            {
                "tokenizer": word(row.name),
                **({"note": word(row.note)} if has_notes else {}),
                "codebook": word(network.codebook),
                "encoder": word(network.encoder),
                "factor": number(factor[0]) if len({*factor}) == 1 else word(by(factor)),
                "ids": vocabulary(network.vocabulary, network.num_codebooks),
                "tokens": number(found.tokens_per_image or None),
                "bits/px": number(found.bits_per_pixel, decimals=4),
                **{
                    label(name): number(
                        value := found.metrics.get(name),
                        decimals=4,
                        tone="good" if value is not None and value == best[name] else "",
                    )
                    for name in board.metrics
                },
                "usage": number(row.usage, decimals=4),
                "parameters": number(row.parameters),
                "GFLOPs": number(row.gflops, decimals=3),
                "on the frontier of": word(", ".join(map(label, frontiers[row.name]))),
                **skipped,
                "hash": word(row.tokenizer[:DIGITS]),
            }
        )
    note = (
        "The best value of each metric is green. A row is on the frontier of a metric if no other "
        "is better at the same or a lower rate. Continuous codebooks have no ids and no rate."
    )
    leading = frozenset(n for n, (row, _) in enumerate(board.measured) if frontiers[row.name])
    made = table("Tokenizers", rows, search="any word", notes=[note])
    return replace(made, marked=leading, mark="Only on a frontier")


def best_of(board: Board, metric: str) -> float | None:
    """Return the best value of a metric; None where neither direction is better."""
    declared = declaration(metric).higher_is_better
    values = [v for _, found in board.measured if (v := found.metrics.get(metric)) is not None]
    if declared is None or len(values) < 2:
        return None
    return max(values) if declared else min(values)


def vocabulary(size: int | None, count: int) -> Cell:
    """Make a cell of the ids of each codebook."""
    cell = number(size)
    return replace(cell, text=f"{count} x {cell.text}") if count > 1 else cell


def without_figures(board: Board) -> list[Block]:
    """List the rows that failed, or that are yet to be measured."""
    rows = [
        {
            "tokenizer": word(row.name),
            "state": word(row.state, tone="bad" if row.state == FAILED else "quiet"),
            "reason": word(row.reason),
        }
        for row in board.rows
        if row.result is None
    ]
    note = "They are tried again by the next run of the same command."
    return [table("Without figures", rows, notes=[note])] if rows else []


def rate_charts(board: Board, frontiers: Mapping[str, Sequence[str]]) -> list[Block]:
    """Draw bits per pixel against each metric, with the frontier and the baselines."""
    points = [
        replace(point_of(row, found), frontier=frontiers[row.name])
        for row, found in board.measured
        if found.bits_per_pixel is not None
    ]
    for row, found in board.measured:
        named = replace(found, name=row.name)
        points += [
            Point(name=name, group=kind, values={RATE: each.bits_per_pixel, **each.metrics})
            for name, kind, each in baselines_of(named, len(board.measured))
        ]
    charts = [
        scatter(
            label(name),
            points,
            xs=[Axis(key=RATE, title="bits per pixel")],
            ys=[metric_axis(name)],
        )
        for name in board.metrics
        if points
    ]
    if not charts:
        return []
    text = "A line joins the frontier. The legend shows and hides kinds of codebooks and baselines."
    if any(found.bits_per_pixel is None for _, found in board.measured):
        text += " Tokenizers with continuous latents have no rate, so they are not shown."
    return [Text(text=text), Charts(title="", charts=charts)]


def point_of(row: Row, found: TokenizerResult) -> Point:
    """Make a point of the charts."""
    assert row.network is not None, "what was measured could be read"
    timings = found.cost.timings if found.cost is not None else ()
    single = [timing.median_ms for timing in timings if timing.batch_size == 1]
    return Point(
        name=row.name,
        group=row.network.codebook,
        values={
            RATE: found.bits_per_pixel,
            **found.metrics,
            "gflops": row.gflops,
            "parameters": row.parameters,
            "milliseconds": math.fsum(single) if single else None,
        },
        note=row.note,
    )


def cost_charts(board: Board) -> list[Block]:
    """Draw the metrics against a cost that is chosen on the page."""
    points = [point_of(row, found) for row, found in board.measured if found.cost is not None]
    xs = [Axis(key=key, title=title) for key, title in COSTS.items()]
    charts = [
        scatter(f"{label(name)} by cost", points, xs=xs, ys=[metric_axis(name)])
        for name in board.metrics
        if points
    ]
    return [Charts(title="", charts=charts)] if charts else []


def reconstructions(board: Board, pictures: Pictures) -> list[Block]:
    """Show the same images as each tokenizer reconstructs them."""
    places = {file: place for place, file in enumerate(pictures.files)}
    items = []
    for at, (name, original) in enumerate(zip(pictures.names, pictures.originals, strict=True)):
        layers = [Layer(name=ORIGINAL, image=places[original])]
        for row in board.rows:
            for file, caption in pictures.reconstructions.get(row.name, ())[at : at + 1]:
                layers.append(Layer(name=row.name, image=places[file], caption=caption))
        items.append(Item(name=name, layers=layers))
    if not items:
        return []
    text = "The first images, the same for all tokenizers."
    right = items[0].layers[1].name
    return [Text(text=text), Viewer(label="Reconstructions", items=items, right=right)]


def commands_table(board: Board) -> Table:
    """List the command line of each row, and what it was measured from."""
    rows = [
        {
            "tokenizer": word(row.name),
            "command": word(row.command, tone="code"),
            "sha256 of the tokenizer": word(row.tokenizer, tone="code"),
        }
        for row in board.rows
    ]
    note = (
        "A command gives the figures of its row where its paths are valid. The hash is of the "
        "modules and all weights, wherever the tokenizer lies."
    )
    return table("Commands", rows, notes=[note])


def protocol_blocks(board: Board, first: Sequence[TokenizerResult]) -> list[Block]:
    """Say on which images and how the metrics are computed."""
    if not first:
        return []
    known = EvaluationResult(images=board.images, settings=board.protocol, tokenizers=first)
    return protocols(known)
