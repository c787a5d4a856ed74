"""The page of a sweep, with jobs that failed, collapsed and were interrupted."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from vqtrain.errors import ConfigError
from vqtrain.reports.blocks import Charts, Page, Section, Table, Text, Viewer
from vqtrain.reports.render import render
from vqtrain.reports.sweep import sweep_page

MakeSweep = Callable[..., Path]


def sections(page: Page) -> Mapping[str, Section]:
    return {section.key: section for section in page.sections}


def charts_in(section: Section) -> list[Any]:
    return [c for block in section.blocks if isinstance(block, Charts) for c in block.charts]


def test_every_job_has_a_row_with_state_reason_and_link(make_sweep: MakeSweep) -> None:
    (table,) = sections(sweep_page(make_sweep()))["runs"].blocks
    assert isinstance(table, Table)
    assert len(table.rows) == 42
    rows = {row[0].text: row for row in table.rows}
    failed = rows["vq_256_0"]
    assert [cell.text for cell in failed[1:3]] == ["failed", "exit code 1: out of memory"]
    assert failed[0].href == ""
    assert rows["vq_64_0"][0].href == "jobs/vq_64_0/report.html"
    assert rows["ema_64_1"][1].text == "collapsed"


def test_names_of_folders_are_quoted_in_links(make_sweep: MakeSweep) -> None:
    folder = make_sweep(kinds=1, sizes=1, seeds=1)
    sweep = json.loads((folder / "sweep.json").read_text())
    sweep["jobs"][0]["run_dir"] = "jobs/a #1%"
    (folder / "jobs/a #1%").mkdir()
    (folder / "jobs/a #1%/report.html").touch()
    (folder / "sweep.json").write_text(json.dumps(sweep))
    (table,) = sections(sweep_page(folder))["runs"].blocks
    assert table.rows[0][0].href == "jobs/a%20%231%25/report.html"  # type: ignore[union-attr]


def test_points_show_their_seeds_and_frontier(make_sweep: MakeSweep) -> None:
    folder = make_sweep()
    found = sections(sweep_page(folder))
    charts = charts_in(found["rate"])
    assert [chart["title"] for chart in charts] == ["PSNR", "LPIPS alex"]
    points = {point["name"]: point for point in charts[0]["points"]}
    plain = {p["label"]: p for p in json.loads((folder / "sweep.json").read_text())["points"]}
    known = plain["ema, codebook.size=64"]["metrics"]["psnr"]
    ends = points["ema, codebook.size=64"]["values"]["psnr"]
    assert ends == pytest.approx([known["mean"], known["low"], known["high"]], rel=1e-4)
    assert points["ema, codebook.size=64"]["hollow"]
    assert "codebook collapsed in 1 of 2 seeds" in points["ema, codebook.size=64"]["note"]
    assert [p["name"] for p in points.values() if "psnr" in p["frontier"]] == [
        label for label, point in plain.items() if "psnr" in point["frontier"]
    ]


def test_rate_of_a_model_has_its_own_frontier_and_columns(make_sweep: MakeSweep) -> None:
    folder = make_sweep(kinds=2, sizes=2)
    found = sections(sweep_page(folder))
    charts = charts_in(found["model"])
    assert [chart["title"] for chart in charts] == ["PSNR", "LPIPS alex"]
    assert [axis["key"] for axis in charts[0]["xs"]] == ["probe_bits_per_pixel"]
    rated = [
        (point["values"]["probe_bits_per_pixel"][0], point["values"]["psnr"][0], point["name"])
        for point in charts[0]["points"]
    ]
    best = {
        name
        for rate, psnr, name in rated
        if not any(r <= rate and p >= psnr and n != name for r, p, n in rated)
    }
    assert {p["name"] for p in charts[0]["points"] if p["frontier"]} == best
    agreement = found["model"].blocks[-1]
    assert isinstance(agreement, Table)
    assert [cell.text for cell in agreement.rows[0]][:2] == ["reconstruction", "transformer"]
    for key in ("points", "runs"):
        (table,) = found[key].blocks
        assert "model bits/px" in table.heads  # type: ignore[union-attr]  # a table
    # A sweep without a probe, as those of older versions.
    sweep = json.loads((folder / "sweep.json").read_text())
    for each in (*sweep["jobs"], *sweep["points"]):
        each.pop("probe", None)
    (folder / "sweep.json").write_text(json.dumps(sweep))
    assert "model" not in sections(sweep_page(folder))


def test_cost_is_chosen_and_usage_is_over_size(make_sweep: MakeSweep) -> None:
    found = sections(sweep_page(make_sweep()))
    assert [axis["key"] for axis in charts_in(found["cost"])[0]["xs"]] == [
        *("train_seconds", "gflops", "parameters"),
    ]
    assert [axis["key"] for axis in charts_in(found["usage"])[0]["xs"]] == [
        *("codebook.size", "bits_per_pixel"),
    ]


def test_the_same_pictures_are_beside_each_other(make_sweep: MakeSweep) -> None:
    folder = make_sweep(kinds=2, sizes=2)
    viewer = sections(sweep_page(folder))["reconstructions"].blocks[-1]
    assert isinstance(viewer, Viewer)
    assert len(viewer.items) == 4
    assert [layer.name for layer in viewer.items[0].layers] == [
        "original",
        *(f"{kind}, codebook.size={size}" for kind in ("vq", "ema") for size in (64, 256)),
    ]
    shutil.rmtree(folder / "jobs")
    assert "reconstructions" not in sections(sweep_page(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [
        {"kinds": 1, "sizes": 1, "seeds": 0},
        {"kinds": 1, "sizes": 3, "seeds": 1},
        {"kinds": 7, "sizes": 6, "seeds": 2, "side": 64},
        {"kinds": 7, "sizes": 2, "seeds": 1, "side": 256},
    ],
)
def test_every_size_of_a_sweep_makes_a_page_under_5_mb(
    make_sweep: MakeSweep, shape: dict[str, int]
) -> None:
    html = render(sweep_page(make_sweep(**shape)))
    assert len(html.encode()) < 5_000_000


@pytest.mark.slow
def test_large_pictures_are_fewer_and_the_page_says_so(make_sweep: MakeSweep) -> None:
    page = sweep_page(make_sweep(kinds=5, sizes=3, seeds=1, side=256))
    text, viewer = sections(page)["reconstructions"].blocks
    assert isinstance(text, Text)
    assert isinstance(viewer, Viewer)
    assert "of 4 images are shown" in text.text


def test_a_sweep_of_which_nothing_is_known_yet_has_a_page(make_sweep: MakeSweep) -> None:
    folder = make_sweep(kinds=2, sizes=2)
    sweep = json.loads((folder / "sweep.json").read_text())
    for job in sweep["jobs"]:
        job |= {"state": "waiting", "metrics": {}, "codebook": None, "train_seconds": None}
        job |= {"bits_per_pixel": None}
    for point in sweep["points"]:
        point |= {"metrics": {}, "usage": None, "train_seconds": None, "frontier": []}
        point |= {"bits_per_pixel": None}
    (folder / "sweep.json").write_text(json.dumps(sweep))
    page = sweep_page(folder)
    assert page.subtitle == "0 of 8 runs have results, 4 points"
    assert "No run has results yet." in render(page)
    (folder / "sweep.json").write_text(json.dumps({**sweep, "jobs": [], "points": []}))
    assert list(sections(sweep_page(folder))) == ["summary", "runs"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "vqtrain-sweep", "version": 2, "jobs": []}']
)
def test_results_that_cannot_be_read_are_refused(make_sweep: MakeSweep, text: str) -> None:
    folder = make_sweep(kinds=1, sizes=1)
    (folder / "sweep.json").write_text(text)
    with pytest.raises(ConfigError, match=r"cannot read .*sweep\.json"):
        sweep_page(folder)
