"""How often the ids of codebooks are used."""

from collections.abc import Mapping, Sequence

import numpy as np

from vqtrain.evaluation.results import CodebookUse
from vqtrain.reports.blocks import Block, Cell, Charts, Facts, Text, number, table, word
from vqtrain.reports.charts import Line, curves, thinned

MOST_POINTS = 500
FIGURES = {
    "usage": "usage",
    "usage@tokens": "usage of reachable ids",
    "perplexity": "perplexity",
    "entropy_bits": "entropy (bits)",
    "top1_share": "share of the most frequent id",
}


def codebook_blocks(codebooks: Mapping[str, CodebookUse]) -> list[Block]:
    """Show the usage of codebooks: figures, and a chart of the ids by frequency for each.

    Args:
        codebooks: By the name of their tokenizer, which is empty if there is only one.
    """
    (first, *others) = codebooks.values()
    blocks: list[Block] = []
    if len(first.ids_seen) == 1 and not others:
        cells = [*seen(first.size, first.ids_seen[0]).items()]
        cells += [(FIGURES[key], number(n, decimals=3)) for key, n in first.figures.items()]
        blocks.append(Facts(rows=[(name, cell.text) for name, cell in cells], is_large=True))
    else:
        rows = [
            {
                **name_of(name),
                "codebook": word(f"codebook {place}" if len(codebook.ids_seen) > 1 else "all"),
                **seen(codebook.size, ids),
            }
            for name, codebook in codebooks.items()
            for place, ids in enumerate(codebook.ids_seen, start=1)
        ]
        blocks.append(table("Ids that occur", rows))
        rows = [
            {
                **name_of(name),
                "tokens": number(codebook.tokens),
                **{FIGURES[k]: number(n, decimals=4) for k, n in codebook.figures.items()},
            }
            for name, codebook in codebooks.items()
        ]
        note = "Means over the codebooks of a tokenizer."
        blocks.append(table("Usage", rows, notes=[note]))
    charts = [
        ids_by_frequency(name or "Ids by frequency", codebook.histogram)
        for name, codebook in codebooks.items()
        if codebook.histogram
    ]
    if charts:
        return [*blocks, Charts(title="", charts=charts)]
    return [*blocks, Text(text="The codebook is too large for a histogram.", tone="note")]


def name_of(name: str) -> dict[str, Cell]:
    """Name the tokenizer, if there are several."""
    return {"tokenizer": word(name)} if name else {}


def seen(size: int, ids: int) -> dict[str, Cell]:
    """Say how many ids there are, and how many of them occur."""
    return {"ids": number(size), "seen": number(ids), "never seen": number(size - ids)}


def ids_by_frequency(title: str, histogram: Sequence[Sequence[int]]) -> dict[str, object]:
    """Draw how often ids occur, from the most to the least frequent."""
    lines = []
    for place, counts in enumerate(histogram, start=1):
        shares = np.sort(np.array(counts, dtype=np.float64))[::-1]
        shares = 100 * shares / max(1.0, shares.sum())
        x, y = thinned(np.arange(1.0, len(shares) + 1), shares, MOST_POINTS)
        name = f"codebook {place}" if len(histogram) > 1 else "ids"
        lines.append(Line(name=name, x=x, y=y))
    x_title, y_title = "rank of the id", "share of the tokens (%)"
    return curves(title, lines, x=x_title, y=y_title, can_be_log=True)
