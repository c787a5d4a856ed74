"""What ``vqtrain discretize`` has measured so far, and the table of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import final

from vqtrain.data.cache import write_whole
from vqtrain.metrics.base import Metric

FILE, TABLE = "discretize.json", "table.md"


@final
@dataclass(frozen=True, kw_only=True)
class Row:
    """A tokenizer on the images to measure on.

    Attributes:
        name: What it is.
        bits_per_pixel: The rate of its ids; None without ids.
        metrics: By name.
    """

    name: str
    bits_per_pixel: float | None
    metrics: Mapping[str, float]


@final
@dataclass(frozen=True, kw_only=True)
class Results:
    """All so far.

    Attributes:
        command: The last command line, without passwords.
        described: What must be the same when the command continues.
        rows: The continuous tokenizer, and what was made of it.
    """

    command: str
    described: Mapping[str, object]
    rows: Sequence[Row] = field(default_factory=list)

    def named(self, name: str) -> Row | None:
        """Return the row of that name, if it is measured."""
        return next((row for row in self.rows if row.name == name), None)


def save(results: Results, out: Path) -> None:
    """Write the results into a folder, whole or not at all."""
    write_whole(out / FILE, f"{json.dumps(asdict(results), indent=1)}\n".encode())


def markdown(rows: Sequence[Row], metrics: Sequence[Metric]) -> str:
    """Return a table in which each row says how much worse it is than the first one.

    Example:
        >>> from vqtrain.metrics.psnr import PSNR
        >>> one = Row(name="continuous", bits_per_pixel=None, metrics={"psnr": 30.0})
        >>> two = Row(name="tokens", bits_per_pixel=0.25, metrics={"psnr": 27.5})
        >>> print(markdown([one, two], [PSNR()]))
        | | bits/px | PSNR (dB) | PSNR lost |
        |---|---|---|---|
        | continuous | - | 30.0000 | - |
        | tokens | 0.2500 | 27.5000 | 2.5000 |
        <BLANKLINE>
    """
    shown = [each for each in metrics if each.name in rows[0].metrics]
    titles = [f"{each.title} ({each.unit})" if each.unit else each.title for each in shown]
    lines = [
        "| | bits/px | "
        + "".join(
            f"{title} | {each.title} lost | " for each, title in zip(shown, titles, strict=True)
        ).rstrip()
    ]
    lines.append("|---" * (2 + 2 * len(shown)) + "|")
    for row in rows:
        cells = [row.name, number(row.bits_per_pixel)]
        for each in shown:
            value, first = row.metrics.get(each.name), rows[0].metrics[each.name]
            loss = None
            if value is not None and row is not rows[0]:
                loss = first - value if each.higher_is_better else value - first
            cells += [number(value), number(loss)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """Write a number of the table."""
    return "-" if value is None else f"{value:.4f}"
