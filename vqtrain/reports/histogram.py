"""How often the ids of a codebook are used, sorted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vqtrain.reports.blocks import Block, Charts, Facts, Table, Text, number, word
from vqtrain.reports.charts import Line, curves, thinned

MOST_POINTS = 500
FIGURES = {
    "usage": "usage",
    "usage@tokens": "usage of what tokens reach",
    "perplexity": "perplexity",
    "entropy_bits": "entropy (bits)",
    "top1_share": "top-1 share",
}


def codebook_blocks(codebooks: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Block]:
    """Show the use of codebooks: their figures, and a chart of sorted use for each.

    Args:
        codebooks: Names, empty for the only one, and what ``describe_ids`` says of them.
    """
    blocks: list[Block] = []
    if len(codebooks) == 1 and len(list(codebooks[0][1].get("ids_seen") or [])) == 1:
        blocks.append(facts_of(codebooks[0][1]))
    else:
        blocks += [seen_table(codebooks), figures_table(codebooks)]
    charts = [
        sorted_use(name or "Sorted use of ids", codebook["histogram"])
        for name, codebook in codebooks
        if codebook.get("histogram")
    ]
    if charts:
        blocks.append(Charts(title="", charts=charts))
    else:
        blocks.append(Text(text="The codebook is too large for a histogram.", tone="note"))
    return blocks


def facts_of(codebook: Mapping[str, Any]) -> Facts:
    """Say how a single codebook is used."""
    size, seen = codebook["size"], codebook["ids_seen"][0]
    cells = [("ids", number(size)), ("seen", number(seen)), ("never seen", number(size - seen))]
    cells += [(name, number(codebook.get(key), decimals=3)) for key, name in FIGURES.items()]
    rows = [(name, cell.text) for name, cell in cells if cell.value is not None]
    return Facts(rows=rows, is_large=True)


def seen_table(codebooks: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Count the ids that occur in each codebook."""
    rows = []
    for name, codebook in codebooks:
        seen = list(codebook.get("ids_seen") or [])
        for place, ids in enumerate(seen):
            part = f"codebook {place + 1}" if len(seen) > 1 else ""
            size = codebook["size"]
            names = [word(name)] if has_names(codebooks) else []
            cells = [number(size), number(ids), number(size - ids)]
            rows.append([*names, word(part or "all"), *cells])
    heads = [*(["tokenizer"] if has_names(codebooks) else []), "codebook"]
    heads += ["ids", "seen", "never seen"]
    return Table(caption="Ids that occur", heads=heads, rows=rows)


def figures_table(codebooks: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """List the figures of codebooks, means over those of one tokenizer."""
    keys = [key for key in FIGURES if any(codebook.get(key) for _, codebook in codebooks)]
    rows = []
    for name, codebook in codebooks:
        names = [word(name)] if has_names(codebooks) else []
        figures = [number(codebook.get(key), decimals=4) for key in keys]
        rows.append([*names, number(codebook.get("tokens")), *figures])
    heads = [*(["tokenizer"] if has_names(codebooks) else []), "tokens"]
    heads += [FIGURES[key] for key in keys]
    note = "Means over the codebooks of a tokenizer."
    return Table(caption="Figures", heads=heads, rows=rows, notes=[note])


def has_names(codebooks: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
    """Say whether there are several tokenizers, and so names to tell them apart."""
    return any(name for name, _ in codebooks)


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
