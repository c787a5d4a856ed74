"""What probes say: a table, on a screen and as Markdown, and whether they agree."""

import math

from rich.console import Console
from rich.table import Table

from vqtrain.generation.ranks import RankCorrelation, describe, rank_correlations
from vqtrain.generation.results import STAGES, ProbeReport, TokenizerProbe

MARKDOWN_FILE = "table.md"
MISSING = "-"
PSNR, BITS = "psnr", "bits/px"
# Figures that order tokenizers, and the heads of their columns.
RANKED = {
    PSNR: PSNR,
    "entropy": f"context {BITS}",
    f"perturbed {PSNR}": "",  # by its share
    "transformer": f"model {BITS}",
    "samples": "samples fid",
}


def figures_of(found: TokenizerProbe) -> dict[str, float]:
    """Return the figures of a tokenizer by the heads of their columns; none of what is missing."""
    figures: dict[str, float] = {f"raw {BITS}": found.bits_per_pixel}
    figures |= dict(found.reconstruction)
    if found.entropy is not None:
        for name in ("context", "compressed"):
            if name in found.entropy.bits_per_pixel:
                figures[f"{name} {BITS}"] = found.entropy.bits_per_pixel[name]
    middle = found.perturb.middle if found.perturb is not None else None
    if middle is not None:
        figures |= {f"{name} at {middle.share:g}": value for name, value in middle.metrics.items()}
    if found.transformer is not None:
        figures[f"model {BITS}"] = found.transformer.bits_per_pixel
    if found.samples is not None:
        figures |= {f"samples {name}": value for name, value in found.samples.metrics.items()}
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def columns_and_rows(report: ProbeReport) -> tuple[list[str], list[list[str]]]:
    """Lay the table out: the head of each column, and a row for each tokenizer."""
    rows: list[dict[str, str]] = []
    for found in report.tokenizers:
        codes = (
            f"{found.size:,}"
            if found.num_codebooks == 1
            else f"{found.num_codebooks} x {found.size:,}"
        )
        rows.append(
            {
                "": found.name,
                "codebook": found.kind,
                "codes": codes,
                "tokens": f"{found.tokens_per_image:,}",
                **{name: written(name, value) for name, value in figures_of(found).items()},
            }
        )
    heads = list(dict.fromkeys(head for row in rows for head in row))
    return heads, [[row.get(head, MISSING) for head in heads] for row in rows]


def written(name: str, value: float) -> str:
    """Write a figure with as many decimals as it deserves."""
    return f"{value:.2f}" if PSNR in name or "fid" in name else f"{value:.4f}"


def markdown(report: ProbeReport) -> str:
    """Return the table as Markdown."""
    heads, rows = columns_and_rows(report)
    heads[0] = "tokenizer"
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def show(report: ProbeReport, console: Console) -> None:
    """Print the table, what each stage took, and how alike the probes order the tokenizers."""
    heads, rows = columns_and_rows(report)
    table = Table(box=None, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number > 1 else "left", no_wrap=number > 0)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)
    taken = {stage: seconds_of(report, stage) for stage in STAGES}
    said = [f"{stage} {seconds:,.1f} s" for stage, seconds in taken.items() if seconds is not None]
    if said:
        console.print(f"{'time':<12}{', '.join(said)}", markup=False)
    for line in describe(correlations_of(report)):
        console.print(line, markup=False)


def seconds_of(report: ProbeReport, stage: str) -> float | None:
    """Add up what a stage took of all tokenizers; None if it was done of none."""
    results = [getattr(found, stage) for found in report.tokenizers]
    done = [result.seconds for result in results if result is not None]
    return math.fsum(done) if done else None


def correlations_of(report: ProbeReport) -> list[RankCorrelation]:
    """Say how alike figures order the tokenizers; of each the better ones come first.

    Fewer bits and smaller distances are better. A pair is left out where fewer than three
    tokenizers have both.
    """
    figures: dict[str, list[float | None]] = {name: [] for name in RANKED}
    for found in report.tokenizers:
        known = figures_of(found)
        middle = found.perturb.middle if found.perturb is not None else None
        perturbed = f"{PSNR} at {middle.share:g}" if middle is not None else ""
        for name, head in {**RANKED, f"perturbed {PSNR}": perturbed}.items():
            value = known.get(head)
            figures[name].append(value if value is None or PSNR in head else -value)
    return rank_correlations(figures)
