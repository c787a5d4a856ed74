"""What is printed of probes, and written as Markdown."""

import io
import math

import pytest
from rich.console import Console

from vqtrain.generation.results import (
    EntropyResult,
    PerturbPoint,
    PerturbResult,
    ProbeReport,
    SamplesResult,
    TokenizerProbe,
)
from vqtrain.generation.tables import columns_and_rows, correlations_of, markdown, show


def make_probe(name: str, *, psnr: float, context: float, perturbed: float) -> TokenizerProbe:
    bits = {"marginal": 2 * context, "context": context}
    points = [
        PerturbPoint(share=share, metrics={"psnr": psnr - share * (psnr - perturbed) / 0.25})
        for share in (0.1, 0.25, 0.5)
    ]
    return TokenizerProbe(
        name=name,
        path=name,
        kind="fsq",
        size=1000,
        num_codebooks=1,
        token_shape=[4, 4],
        image_size=16,
        tokens_per_image=16,
        bits_per_pixel=0.5,
        reconstruction={"psnr": psnr, "rfid@16": math.nan},
        entropy=EntropyResult(bits_per_token=bits, bits_per_pixel=bits, seconds=1.5),
        perturb=PerturbResult(neighbors=4, points=points, seconds=2.0),
    )


@pytest.fixture
def report() -> ProbeReport:
    probes = [
        make_probe("a", psnr=20.0, context=0.3, perturbed=15.0),
        make_probe("b", psnr=22.0, context=0.4, perturbed=16.0),
        make_probe("c", psnr=25.0, context=0.5, perturbed=14.0),
    ]
    return ProbeReport(images={}, settings={}, tokenizers=probes)


def test_a_column_is_there_for_each_figure_that_is_known(report: ProbeReport) -> None:
    heads, rows = columns_and_rows(report)
    assert dict(zip(heads, rows[1], strict=True)) == {
        "": "b",
        "codebook": "fsq",
        "codes": "1,000",
        "tokens": "16",
        "raw bits/px": "0.5000",
        "psnr": "22.00",
        "context bits/px": "0.4000",
        "psnr at 0.25": "16.00",
    }


def test_a_figure_that_others_have_is_missing(report: ProbeReport) -> None:
    (first, *_) = report.tokenizers
    bare = TokenizerProbe(**{**vars(first), "name": "d", "entropy": None, "num_codebooks": 4})
    heads, rows = columns_and_rows(ProbeReport(images={}, settings={}, tokenizers=[first, bare]))
    cells = dict(zip(heads, rows[1], strict=True))
    assert (cells["context bits/px"], cells["codes"]) == ("-", "4 x 1,000")


def test_orders_are_compared_where_better_is_first(report: ProbeReport) -> None:
    found = {(each.first, each.second): each.value for each in correlations_of(report)}
    # PSNR puts c, b, a first; the code length, of which less is better, a, b, c.
    assert found["psnr", "entropy"] == pytest.approx(-1)
    # Perturbed PSNR puts b, a, c: ranks 2, 3, 1 against 1, 2, 3 of PSNR, 1 - 6 * 6 / (3 * 8).
    assert found["psnr", "perturbed psnr"] == pytest.approx(-0.5)
    assert found["entropy", "perturbed psnr"] == pytest.approx(0.5)
    assert len(found) == 3


def test_what_is_shown(report: ProbeReport) -> None:
    console = Console(file=io.StringIO(), width=200)
    show(report, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    assert "time        entropy 4.5 s, perturb 6.0 s\n" in shown
    assert "psnr, perturbed psnr        -0.50 (3 tokenizers)\n" in shown
    lines = markdown(report).splitlines()
    assert lines[0].startswith("| tokenizer | codebook | codes | tokens | raw bits/px | psnr |")
    assert lines[3] == "| b | fsq | 1,000 | 16 | 0.5000 | 22.00 | 0.4000 | 16.00 |"


def test_distances_of_samples_are_compared_too(report: ProbeReport) -> None:
    samples = [
        SamplesResult(count=2, metrics={"fid": fid}, sampling={}, seconds=0.0)
        for fid in (3.0, 2.0, 1.0)
    ]
    probes = [
        TokenizerProbe(**{**vars(probe), "samples": each})
        for probe, each in zip(report.tokenizers, samples, strict=True)
    ]
    found = correlations_of(ProbeReport(images={}, settings={}, tokenizers=probes))
    (value,) = [each.value for each in found if {each.first, each.second} == {"psnr", "samples"}]
    assert value == pytest.approx(1)
