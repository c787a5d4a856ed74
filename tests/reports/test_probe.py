"""The page of a probe, whatever is there of it."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqtrain.errors import ConfigError
from vqtrain.generation.results import read_probe, write_probe
from vqtrain.reports.blocks import Charts, Facts, Page, Section, Table, Viewer
from vqtrain.reports.probe import halves, probe_page
from vqtrain.reports.render import render


def sections(page: Page) -> Mapping[str, Section]:
    return {section.key: section for section in page.sections}


def charts_in(section: Section) -> dict[str, Any]:
    blocks = [block for block in section.blocks if isinstance(block, Charts)]
    return {str(chart["title"]): chart for block in blocks for chart in block.charts}


def rows_of(section: Section) -> dict[str, dict[str, str]]:
    table, *_ = (block for block in section.blocks if isinstance(block, Table))
    return {
        row[0].text: dict(zip(table.heads, (cell.text for cell in row), strict=True))
        for row in table.rows
    }


def test_tokenizers_are_compared_and_the_figures_explained(probe: Path) -> None:
    page = probe_page(probe)
    found = sections(page)
    assert list(found) == [
        *("results", "rate", "transformers", "perturbed", "entropy", "samples", "cost", "settings")
    ]
    assert page.subtitle == "3 tokenizers: entropy, perturb, transformer, samples"
    rows = rows_of(found["results"])
    assert rows["fsq"] == {
        "tokenizer": "fsq",
        "codebook": "fsq",
        "ids": "2 x 64",
        "tokens": "64",
        "px": "16",
        "bits/px": "0.5000",
        "PSNR": "23.0000",
        "SSIM": "0.8000",
        "entropy bits/px": "0.4500",
        "model bits/px": "0.4000",
        "PSNR, 25% perturbed": "19.5000",
        "samples FID": "120.5000",
    }
    assert rows["lfq"]["model bits/px"] == "-"
    meanings = next(block for block in found["results"].blocks if isinstance(block, Facts))
    named = " ".join(name for name, _ in meanings.rows)
    assert all(word in named for word in ("entropy bits/px", "model bits/px", "perturbed"))
    assert rows_of(found["cost"])["fsq"]["all (s)"] == "68.0"
    assert rows_of(found["transformers"])["fsq"]["code length"] == "upper bound"
    settings = dict(row for facts in found["settings"].blocks for row in facts.rows)  # type: ignore[union-attr]  # facts
    assert (settings["transformer budget"], settings["transformer depth"]) == ("1e+13", "-")
    html = render(page)
    assert "secret" not in html
    assert "ema &lt;b&gt;" in html


def test_three_tokenizers_show_whether_probes_agree(probe: Path) -> None:
    report = read_probe(probe)
    assert len(sections(probe_page(probe))["results"].blocks) == 2  # two were probed
    first, second, last = report.tokenizers
    last = replace(last, entropy=first.entropy)
    write_probe(replace(report, tokenizers=[first, second, last]), probe)
    table = sections(probe_page(probe))["results"].blocks[-1]
    assert isinstance(table, Table)
    # PSNR ranks them 3, 2, 1, and fewer bits 2.5, 1, 2.5.
    assert [[cell.text for cell in row] for row in table.rows] == [["psnr", "entropy", "0.00", "3"]]


def test_a_model_is_filled_on_the_curve_and_the_stored_ids_are_hollow(probe: Path) -> None:
    chart = charts_in(sections(probe_page(probe))["rate"])["PSNR"]
    points = {point["name"]: point for point in chart["points"]}
    assert [point["values"]["bits_per_pixel"] for point in points.values()] == [
        *([0.6], [0.5], [0.5], [0.4], [0.4])
    ]
    assert [point["hollow"] for point in points.values()] == [True, False, True, False, True]
    # The second one has fewer bits and a higher PSNR than the first.
    assert [name for name, point in points.items() if point["frontier"]] == ["fsq, the transformer"]


def test_curves_are_of_training_and_of_perturbation(probe: Path) -> None:
    found = sections(probe_page(probe))
    lines = charts_in(found["transformers"])["Held-out code length"]["lines"]
    assert [line["name"] for line in lines] == ["ema <b>", "fsq"]
    assert lines[0]["x"] == [100, 200, 300, 400]
    assert lines[0]["y"] == pytest.approx([0.6, 0.55, 0.53333, 0.525])
    psnr = charts_in(found["perturbed"])["PSNR"]["lines"][1]
    # The reconstruction of the ids as they are comes first.
    assert (psnr["x"], psnr["y"]) == ([0, 10, 25, 50], [23, 21, 19.5, 17])


def test_samples_are_beside_real_images(probe: Path) -> None:
    (viewer,) = [b for b in sections(probe_page(probe))["samples"].blocks if isinstance(b, Viewer)]
    assert [item.name for item in viewer.items] == ["ema <b>", "fsq"]
    assert [layer.name for layer in viewer.items[0].layers] == ["real images", "sampled images"]
    picture = np.arange(70 * 52 * 3).reshape(70, 52, 3).astype(np.uint8)
    parts = halves(picture, 16)
    assert np.array_equal(parts["real images"], picture[:34])
    assert np.array_equal(parts["sampled images"], picture[36:])
    # Of large images, as many whole ones as can be seen: two of 255 px in 768, with their margins.
    parts = halves(np.zeros((6 * 257 - 2, 4 * 257 - 2, 3), np.uint8), 255)
    assert {part.shape for part in parts.values()} == {(2 * 257 - 2, 2 * 257 - 2, 3)}


def test_a_probe_of_one_tokenizer_and_one_that_has_begun_have_pages(probe: Path) -> None:
    report = read_probe(probe)
    first, _, last = report.tokenizers
    write_probe(replace(report, tokenizers=[first]), probe)
    shutil.move(probe / first.name / "samples.png", probe)
    shutil.rmtree(probe / first.name)
    page = probe_page(probe)
    assert page.subtitle == "1 tokenizer: entropy, perturb, transformer, samples"
    assert "samples" in sections(page)
    (probe / "samples.png").write_bytes(b"no image")
    assert "samples" not in sections(probe_page(probe))
    write_probe(replace(report, tokenizers=[replace(last, reconstruction={})]), probe)
    page = probe_page(probe)
    assert (page.title, page.subtitle) == ("lfq", "1 tokenizer: nothing is measured yet")
    assert list(sections(page)) == ["results", "settings"]
    # The model that counts stands in for a transformer.
    write_probe(replace(report, tokenizers=[replace(last, entropy=first.entropy)]), probe)
    chart = charts_in(sections(probe_page(probe))["rate"])["PSNR"]
    assert [point["values"]["bits_per_pixel"] for point in chart["points"]] == [[0.4], [0.55]]


def test_results_that_cannot_be_read_are_refused(probe: Path) -> None:
    (probe / "probe.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"cannot read the results in .*probe\.json"):
        probe_page(probe)
