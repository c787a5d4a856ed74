"""How often the ids of codebooks are used, and what single ones do."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from vqtrain.evaluation.code_images import FILE
from vqtrain.evaluation.results import CodebookUse, GridUse
from vqtrain.reports.blocks import Block, Cell, Charts, Facts, Picture, Text, number, table, word
from vqtrain.reports.charts import Line, curves, thinned
from vqtrain.reports.images import encode, read_image

MOST_POINTS = 500
# Of the pictures of single ids on a page.
PICTURE_BYTES = 1_500_000
# Of pairs and ids: in all, and of each grid.
MOST_ROWS, LEAST_ROWS = 16, 2
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


def code_blocks(codebooks: Mapping[str, CodebookUse], folders: Mapping[str, Path]) -> list[Block]:
    """Show what single ids look like, next to which others they are, and what errors they make.

    Args:
        codebooks: As in ``codebook_blocks``.
        folders: By the same names, where the pictures are.
    """
    blocks: list[Block] = []
    room = PICTURE_BYTES
    for name, folder in folders.items():
        image = read_image(folder / FILE)
        of = f" of {name}" if name else ""
        if image is not None and len(uri := encode(image)) <= room:
            room -= len(uri)
            blocks.append(Picture(uri=uri, label=f"Ids{of}, and their entropy by position"))
        elif image is not None:
            text = f"{FILE}{of} is left out to keep this page small."
            blocks.append(Text(text=text, tone="note"))
    rows: dict[str, list[dict[str, Cell]]] = {"neighbors": [], "pairs": [], "errors": []}
    grids = [*grids_of(codebooks)]
    most = max(LEAST_ROWS, MOST_ROWS // max(1, len(grids)))
    for head, grid in grids:
        for side, found in (("left", grid.left), ("above", grid.upper)):
            if found is not None:
                rows["neighbors"].append(
                    {
                        **head,
                        "neighbor": word(side),
                        "bits": number(found.mutual_information_bits, decimals=3),
                        "bits by chance": number(found.by_chance_bits, decimals=3),
                    }
                )
        for pair in grid.pairs[:most]:
            side = "left" if pair.neighbor == "left" else "above"
            rows["pairs"].append(
                {
                    **head,
                    "id": number(pair.id),
                    "neighbor": word(side),
                    "its id": number(pair.neighbor_id),
                    "count": number(pair.count),
                    "bits": number(pair.bits, decimals=2),
                }
            )
        for worst in grid.worst_ids[:most]:
            rows["errors"].append(
                {
                    **head,
                    "id": number(worst.id),
                    "share of the error (%)": number(100 * worst.share_of_error, decimals=2),
                    "share of the tokens (%)": number(100 * worst.share_of_tokens, decimals=2),
                }
            )
    captions = {
        "neighbors": "What an id says about its neighbor (mutual information)",
        "pairs": "Pairs that occur far more often than by chance",
        "errors": "Ids with most of the squared error",
    }
    blocks += [table(captions[key], found) for key, found in rows.items() if found]
    notes = dict.fromkeys(line for each in codebooks.values() for line in each.left_out)
    return [*blocks, *(Text(text=f"Left out: {line}.", tone="note") for line in notes)]


def grids_of(codebooks: Mapping[str, CodebookUse]) -> Iterator[tuple[dict[str, Cell], GridUse]]:
    """List the grids of all tokenizers, with the cells that name each."""
    for name, codebook in codebooks.items():
        for grid in codebook.grids:
            several = {"grid": word(grid.name)} if len(codebook.grids) > 1 else {}
            yield {**name_of(name), **several}, grid
