"""What an evaluation says: a table, JSON, Parquet, and Markdown for a model card."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from rich.console import Console
from rich.table import Table

from vqtrain.data.cache import write_whole
from vqtrain.data.media import IMAGE, SOUND, media_of
from vqtrain.evaluation.comparison import RATE, Result
from vqtrain.evaluation.cost import Cost, Timing
from vqtrain.evaluation.measure import Measured
from vqtrain.shapes import ImageSize, by, in_words, sample_size_of, typed
from vqtrain.version import __version__

JSON_FILE, MARKDOWN_FILE, PARQUET_FILE = "evaluation.json", "table.md", "per_image.parquet"
DECIMALS = 4
MAX_NAMED = 3
# Of the codebook's figures, those that have a column.
CODEBOOK_COLUMNS = ("usage", "usage@tokens", "perplexity")
MISSING = "-"
# Those that baselines leave empty.
OWN_COLUMNS = ("px", "size", "kbit/s")


@final
@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tokenizer in a table.

    Attributes:
        name: As the user wrote it.
        folder: Where its files are, below that of the evaluation.
        image_size: Side of square images, or the sizes of the axes of a sample.
        tokens_per_image: Ids of one sample; 0 of a continuous codebook.
        bits_per_pixel: Of the ids, by pixel or value; None of a continuous codebook.
        kbit_per_second: Of the ids; None of images, and where time is not known.
        keys: Names of the samples that count.
        measured: What was measured.
        rules: By metric, how its value came about, for people.
        cost: What the tokenizer costs, or None if not asked for.
        origin: The continuous tokenizer that it was made of, for people; None if of none.
    """

    name: str
    folder: str
    image_size: ImageSize
    tokens_per_image: int
    bits_per_pixel: float | None
    kbit_per_second: float | None
    keys: Sequence[str]
    measured: Measured
    rules: Mapping[str, Mapping[str, str]]
    cost: Cost | None
    origin: str | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """Tokenizers that were measured on the same images.

    Attributes:
        images: Where the images are from, how many there are, and a hash of their names and sizes.
        settings: With what all was computed.
        entries: The tokenizers.
    """

    images: Mapping[str, object]
    settings: Mapping[str, object]
    entries: Sequence[Entry]


def save(report: Report, out: Path) -> None:
    """Write JSON and Markdown into a folder, each whole or not at all."""
    text = json.dumps(to_plain(report), indent=2, allow_nan=False)
    # A histogram on a line of its own, not on one for each id.
    text = re.sub(r"\[\n[\s\d.,]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)
    write_whole(out / JSON_FILE, f"{text}\n".encode())
    write_whole(out / MARKDOWN_FILE, markdown(report).encode())


def to_plain(report: Report) -> dict[str, object]:
    """Return a report as plain data, with four decimals; what is no number is None."""
    plain = _rounded(
        {
            "vqtrain": __version__,
            "images": report.images,
            "settings": report.settings,
            "tokenizers": [_entry(entry) for entry in report.entries],
        }
    )
    assert isinstance(plain, dict), "a mapping stays one"
    return plain


def _entry(entry: Entry) -> dict[str, object]:
    measured, media = entry.measured, media_of(len(sample_size_of(entry.image_size)))
    return {
        "name": entry.name,
        "image_size": entry.image_size,
        "count": len(entry.keys),
        "tokens_per_image": entry.tokens_per_image,
        RATE: entry.bits_per_pixel,
        **({} if media is IMAGE else {"kbit_per_second": entry.kbit_per_second}),
        "metrics": measured.tokenizer.metrics,
        **_by_frame(measured.tokenizer),
        "protocols": entry.rules,
        "codebook": measured.codebook,
        "baselines": {
            word: {RATE: result.means[RATE], "metrics": result.metrics, **_by_frame(result)}
            for word, result in measured.baselines.items()
        },
        "seconds": measured.seconds,
        "cost": None if entry.cost is None else asdict(entry.cost),
        "per_image": (Path(entry.folder) / PARQUET_FILE).as_posix(),
        "skipped": [asdict(fault) for fault in measured.faults],
    }


def _by_frame(result: Result) -> dict[str, object]:
    return {"by_frame": result.frames} if result.frames else {}


def _rounded(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, DECIMALS) if math.isfinite(value) else None
    return value


def write_per_image(entry: Entry, folder: Path) -> None:
    """Write every value of every image as Parquet: ``key``, ``psnr``, ..., ``jpeg/psnr``, ..."""
    import pyarrow
    from pyarrow import parquet

    # A name from a disk may hold bytes that are no text.
    keys = [key.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for key in entry.keys]
    columns: dict[str, Sequence[object]] = {"key": keys, **entry.measured.tokenizer.values}
    for word, result in entry.measured.baselines.items():
        columns |= {f"{word}/{name}": values for name, values in result.values.items()}
    parquet.write_table(pyarrow.table(columns), folder / PARQUET_FILE)


def columns_and_rows(entries: Sequence[Entry]) -> tuple[list[str], list[list[str]]]:
    """Lay the table out: the head of each column, and a row for each tokenizer and baseline."""
    rows: list[dict[str, str]] = []
    for entry in entries:
        measured, codebook = entry.measured, entry.measured.codebook or {}
        size = sample_size_of(entry.image_size)
        media, head = media_of(len(size)), rate_head(size)
        rate = MISSING if entry.bits_per_pixel is None else f"{entry.bits_per_pixel:.4f}"
        speed = MISSING if entry.kbit_per_second is None else f"{entry.kbit_per_second:.2f}"
        rows.append(
            {
                "": entry.name,
                size_head(size): typed(entry.image_size) if media is IMAGE else by(size),
                "tokens": f"{entry.tokens_per_image:,}" if entry.tokens_per_image else MISSING,
                head: rate,
                **({} if media is IMAGE else {"kbit/s": speed}),
                **_figures(measured.tokenizer.metrics),
                **_figures({name: codebook[name] for name in CODEBOOK_COLUMNS if name in codebook}),
            }
        )
        for word, result in measured.baselines.items():
            rate = f"{result.means[RATE]:.4f}"
            rows.append({"": f"  {word}", head: rate, **_figures(result.metrics)})
    names = dict.fromkeys(name for row in rows for name in row)
    last = [name for name in names if name in CODEBOOK_COLUMNS]
    heads = [*(name for name in names if name not in last), *last]
    return heads, [
        [row.get(head, "" if head in OWN_COLUMNS else MISSING) for head in heads] for row in rows
    ]


def size_head(size: Sequence[int]) -> str:
    """Return the head of the column of sizes, of samples of a size."""
    return "px" if media_of(len(size)) is IMAGE else "size"


def rate_head(size: Sequence[int]) -> str:
    """Return the head of the column of rates, of samples of a size."""
    return "bits/value" if media_of(len(size)) is SOUND else "bits/px"


def _figures(values: Mapping[str, object]) -> dict[str, str]:
    return {
        name: f"{value:.{DECIMALS}f}" if math.isfinite(value) else MISSING
        for name, value in values.items()
        if isinstance(value, float)
    }


def show(report: Report, console: Console) -> None:
    """Print the table, and below it how each value comes about and what everything took."""
    heads, rows = columns_and_rows(report.entries)
    table = Table(box=None, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=number > 0)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)
    for entry in report.entries:
        if len(report.entries) > 1:
            console.print(f"\n{entry.name}", markup=False)
        for line in _notes(entry):
            console.print(line, markup=False)


def _notes(entry: Entry) -> Iterator[str]:
    measured = entry.measured
    if entry.origin:
        yield f"{'discretized':<12}{entry.origin}"
    for name, rule in entry.rules.items():
        yield f"{name:<11} {'; '.join(_brief(rule))}"
    for line in cost_lines(entry.cost) if entry.cost is not None else []:
        yield f"{'cost':<12}{line}"
    taken = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in measured.seconds.items())
    yield f"{'time':<12}{taken}"
    if measured.faults:
        yield f"{'skipped':<12}{len(measured.faults):,}"
    for fault in measured.faults[:MAX_NAMED]:
        yield f"{'':<12}{fault.key or fault.shard}: {fault.reason}"


def _brief(rule: Mapping[str, str]) -> Iterator[str]:
    for key, value in rule.items():
        yield f"{key} {value[:12] if key.endswith('sha256') else value}"


def cost_lines(cost: Cost) -> Iterator[str]:
    """Say what a tokenizer costs, a figure or two per line."""
    parts = ", ".join(f"{name} {count:,}" for name, count in cost.parameters.items())
    yield f"parameters: {parts}"
    size = sample_size_of(cost.image_size)
    noun = media_of(len(size)).noun
    yield (
        f"one {noun} of {in_words(size)}: encode {cost.encode_flops / 1e9:.3f} GFLOPs, "
        f"decode {cost.decode_flops / 1e9:.3f} GFLOPs; a multiply-add counts 2"
    )
    for timing in cost.timings:
        memory = ""
        if timing.memory_bytes is not None:
            memory = f", {timing.memory_bytes / 2**20:.1f} MiB"
        doubts = ""
        if not timing.is_steady:
            doubts += f"; noisy: two rounds differ by {timing.spread:.0%}"
        if timing.change is not None and not timing.is_repeated:
            doubts += f"; not repeated: the last run here differs by {timing.change:.0%}"
        yield (
            f"{timing.operation} {timing.batch_size} on {cost.device}: {timing.median_ms:.2f} ms, "
            f"95 % within {timing.p95_ms:.2f} ms, {timing.images_per_s:.1f} {noun}s/s"
            f"{memory}{doubts}"
        )
    if cost.timings:
        yield _repetition(cost.timings)
    for batch_size in cost.too_large:
        yield f"batch size {batch_size} did not fit into the memory of {cost.device}"


def _repetition(timings: Sequence[Timing]) -> str:
    if all(timing.is_repeated for timing in timings):
        return "the last run on this machine gave the same speed, within 10 %"
    if all(timing.change is None for timing in timings):
        return (
            "the speed was not measured on this machine before: measure again, into another out, "
            "to see whether it repeats"
        )
    return "the speed did not repeat: do not compare it with that of another run"


def markdown(report: Report) -> str:
    """Return the table and its notes in Markdown, as a model card takes them."""
    heads, rows = columns_and_rows(report.entries)
    lines = [_line([head or "tokenizer" for head in heads])]
    lines.append(_line(["---", *["---:"] * (len(heads) - 1)]))
    lines += [_line([cell.strip() for cell in row]) for row in rows]
    lines += ["", f"Measured with vqtrain {__version__}."]
    for entry in report.entries:
        lines.append("")
        if len(report.entries) > 1:
            lines += [f"{_cell(entry.name)}:", ""]
        bad = len(entry.measured.faults)
        noun = media_of(len(sample_size_of(entry.image_size))).noun
        lines.append(f"- {len(entry.keys):,} {noun}s" + f"; {bad:,} skipped" * bool(bad))
        if entry.origin:
            lines.append(f"- discretized {_cell(entry.origin)}")
        for name, rule in entry.rules.items():
            lines.append(f"- {name}: {_cell('; '.join(f'{k} {v}' for k, v in rule.items()))}")
        if entry.cost is not None:
            lines += [f"- {_cell(line)}" for line in cost_lines(entry.cost)]
    return "\n".join([*lines, ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
