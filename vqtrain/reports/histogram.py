"""How often the ids of a codebook are used, sorted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vqtrain.reports.blocks import Block, Charts, Table, Text, number, word
from vqtrain.reports.charts import Line, curves, thinned

MOST_POINTS = 500


def codebook_blocks(codebooks: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Block]:
    """Show the use of codebooks: their figures, and a chart of sorted use for each.

    Args:
        codebooks: Names, empty for the only one, and what ``describe_ids`` says of them.
    """
    charts, rows, has_names = [], [], any(name for name, _ in codebooks)
    for name, codebook in codebooks:
        size, seen = codebook.get("size"), list(codebook.get("ids_seen") or [])
        for place, ids in enumerate(seen):
            part = f"codebook {place + 1}" if len(seen) > 1 else ""
            rows.append(
                [
                    word(" ".join(filter(None, (name, part))) or "all ids"),
                    number(size),
                    number(ids),
                    number(size - ids if isinstance(size, int) else None),
                ]
            )
        if codebook.get("histogram"):
            charts.append(sorted_use(name or "Sorted use of ids", codebook["histogram"]))
    heads = ["tokenizer" if has_names else "", "ids", "seen", "never seen"]
    blocks: list[Block] = [Table(caption="Ids that occur", heads=heads, rows=rows)]
    keys = ("usage", "usage@tokens", "perplexity", "entropy_bits", "top1_share")
    figures = [
        [
            word(name or "all"),
            number(codebook.get("tokens")),
            *(number(codebook.get(key), decimals=4) for key in keys),
        ]
        for name, codebook in codebooks
    ]
    names = ["usage", "usage of what tokens reach", "perplexity", "entropy (bits)", "top-1 share"]
    kept = [n for n in range(len(keys)) if any(row[n + 2].value is not None for row in figures)]
    heads = ["tokenizer" if has_names else "", "tokens", *(names[n] for n in kept)]
    lines = [[*row[:2], *(row[n + 2] for n in kept)] for row in figures]
    blocks.append(Table(caption="Figures", heads=heads, rows=lines))
    if charts:
        blocks.append(Charts(title="", charts=charts))
    else:
        blocks.append(Text(text="The codebook is too large for a histogram.", tone="note"))
    return blocks


def sorted_use(title: str, histogram: Sequence[Sequence[int]]) -> dict[str, object]:
    """Draw how often ids occur, from the most frequent to those that never do."""
    lines = []
    for place, counts in enumerate(histogram):
        shares = np.sort(np.array(counts, dtype=np.float64))[::-1]
        shares = 100 * shares / max(1.0, shares.sum())
        x, y = thinned(np.arange(1.0, len(shares) + 1), shares, MOST_POINTS)
        name = f"codebook {place + 1}" if len(histogram) > 1 else "ids"
        lines.append(Line(name=name, x=x, y=y))
    return curves(
        title,
        lines,
        x="rank of the id",
        y="share of the tokens (%)",
        can_be_log=True,
    )
