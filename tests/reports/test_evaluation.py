"""The page of an evaluation."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from vqtrain.errors import ConfigError
from vqtrain.evaluation.results import ImageValues
from vqtrain.reports.blocks import Charts, Page, Section, Table, Text, Viewer
from vqtrain.reports.evaluation import captions_of, distribution, evaluation_page


def sections(page: Page) -> Mapping[str, Section]:
    return {section.key: section for section in page.sections}


def test_tokenizers_and_baselines_are_in_the_table(evaluation: Path) -> None:
    page = evaluation_page(evaluation)
    assert page.subtitle == "2 tokenizers on 40 images of https://host/a.tar"
    (table,) = sections(page)["results"].blocks
    assert isinstance(table, Table)
    rows = {row[0].text: [cell.text for cell in row] for row in table.rows}
    assert rows["runs/a<b>"][3:8] == ["64", "0.2500", "23.0000", "0.6000", "55.0000"]
    assert rows["JPEG at 0.90 bits/px, for runs/a<b>"][4:7] == ["0.9000", "20.0000", "0.5000"]
    assert rows["runs/kl"][4] == "-"


def test_what_has_a_rate_is_a_point(evaluation: Path) -> None:
    charts, note = sections(evaluation_page(evaluation))["rate"].blocks
    assert isinstance(charts, Charts)
    assert [chart["title"] for chart in charts.charts] == ["PSNR", "SSIM", "rFID@40"]
    names = [point["name"] for point in charts.charts[0]["points"]]  # type: ignore[attr-defined]
    assert "runs/a<b>" in names
    assert "runs/kl" not in names
    assert isinstance(note, Text)


def test_worst_and_best_are_cut_into_their_looks(evaluation: Path) -> None:
    blocks = sections(evaluation_page(evaluation))["examples"].blocks
    viewers = [block for block in blocks if isinstance(block, Viewer)]
    assert [viewer.label for viewer in viewers][:2] == [
        "Worst images of runs/a<b>",
        "Best images of runs/a<b>",
    ]
    assert [layer.name for layer in viewers[0].items[0].layers] == [
        *("original", "reconstruction", "ids"),
    ]
    assert viewers[0].items[0].name.startswith("image <")
    assert viewers[0].items[0].caption.endswith(" dB")


@pytest.mark.parametrize(("side", "first"), [("worst", "b"), ("best", "c")])
@pytest.mark.parametrize(("metric", "sign"), [("psnr", 1), ("lpips_alex", -1)])
def test_captions_are_in_the_order_of_the_pictures(
    side: str, first: str, metric: str, sign: int
) -> None:
    values = {metric: sign * np.array([2.0, 1.0, 3.0])}
    assert captions_of(ImageValues(keys=["a", "b", "c"], values=values), side)[0][0] == first


def test_a_distribution_adds_up() -> None:
    chart = distribution("psnr", {"a": np.array([1.0, 1, 2, 5]), "b": np.array([np.nan, 3.0])})
    shares = {line["name"]: sum(line["y"]) for line in chart["lines"]}  # type: ignore[attr-defined]
    assert shares == {"a": 100, "b": 100}


def test_equal_values_have_a_distribution_too() -> None:
    chart = distribution("psnr", {"a": np.full(3, 100.0)})
    assert max(chart["lines"][0]["y"]) == 100  # type: ignore[index]  # plain data


def test_values_of_frames_are_curves(evaluation: Path) -> None:
    assert "frames" not in sections(evaluation_page(evaluation))  # of images
    file = evaluation / "evaluation.json"
    content = json.loads(file.read_text())
    content["tokenizers"][0]["by_frame"] = {"psnr": [24.5, None, 22.0]}
    content["tokenizers"][0]["baselines"]["jpeg"]["by_frame"] = {"psnr": [9.0, 8.0, 7.0]}
    file.write_text(json.dumps(content))
    (charts,) = sections(evaluation_page(evaluation))["frames"].blocks
    assert isinstance(charts, Charts)
    (chart,) = charts.charts
    lines = {line["name"].partition(" at ")[0]: line for line in chart["lines"]}  # type: ignore[attr-defined]  # plain data
    assert (lines["runs/a<b>"]["x"], lines["runs/a<b>"]["y"]) == ([0, 1, 2], [24.5, None, 22.0])
    assert lines["JPEG"]["y"] == [9, 8, 7]


def test_without_pictures_and_single_values_the_rest_is_there(evaluation: Path) -> None:
    for folder in filter(Path.is_dir, evaluation.iterdir()):
        shutil.rmtree(folder)
    found = sections(evaluation_page(evaluation))
    assert isinstance(found["examples"].blocks[0], Text)
    assert isinstance(found["spread"].blocks[0], Text)
    assert isinstance(found["results"].blocks[0], Table)


def test_keys_that_are_not_there_are_missing(evaluation: Path) -> None:
    file = evaluation / "evaluation.json"
    report = json.loads(file.read_text())
    for entry in report["tokenizers"]:
        for key in ("cost", "codebook", "baselines", "seconds", "skipped", "protocols"):
            del entry[key]
    file.write_text(json.dumps(report))
    found = sections(evaluation_page(evaluation))
    assert "codebook" not in found
    assert isinstance(found["cost"].blocks[0], Text)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tokenizers": []}'])
def test_figures_that_cannot_be_read_are_refused(evaluation: Path, text: str) -> None:
    (evaluation / "evaluation.json").write_text(text)
    with pytest.raises(ConfigError, match=r"cannot read .*evaluation\.json"):
        evaluation_page(evaluation)
