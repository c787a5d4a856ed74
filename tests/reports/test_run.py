"""The page of a run, whatever is there of it."""

import base64
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from PIL import Image

from vqtrain.app.parts.choices import read_choice
from vqtrain.drawing.panels import in_rows
from vqtrain.errors import ConfigError
from vqtrain.reports.blocks import Charts, Page, Section, Table, Text, Viewer
from vqtrain.reports.render import render
from vqtrain.reports.run import run_page

MakeRun = Callable[..., Path]


def page_of(run: Path, **options: Any) -> Page:
    chosen = {"other": None, "limit": 8, "device": torch.device("cpu"), "held": None, **options}
    return run_page(run, **chosen)


def sections(page: Page) -> Mapping[str, Section]:
    return {section.key: section for section in page.sections}


def words(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


def test_a_whole_run_has_every_section(make_run: MakeRun) -> None:
    page = page_of(make_run("run"))
    assert list(sections(page)) == [
        "summary",
        "curves",
        "reconstructions",
        "worst",
        "codebook",
        "progress",
        "configuration",
        "environment",
    ]
    assert page.title == "run <b>&"
    assert page.subtitle == "Finished, 40 steps"
    facts, table = sections(page)["summary"].blocks
    assert ("tokens per image", "4 x 4 = 16") in facts.rows
    assert ("bits per pixel", "0.2442") in facts.rows  # 16 of 15 ids for 256 px
    assert isinstance(table, Table)
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["rFID@16"] == ["40.0000", "40", "40.0000", "40", "lower"]


def test_the_run_of_a_transformer_shows_its_code_length(token_run: Path) -> None:
    page = page_of(token_run)
    assert (page.title, page.subtitle) == ("transformer", "Finished, 40 steps")
    found = sections(page)
    assert list(found) == ["summary", "curves", "configuration", "environment"]
    table = found["summary"].blocks[1]
    assert isinstance(table, Table)
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["Bits per token"] == ["6.3750", "40", "6.3750", "40", "lower"]
    (first, *_) = (block for block in found["curves"].blocks if isinstance(block, Charts))
    lines = {chart["title"]: [line["name"] for line in chart["lines"]] for chart in first.charts}  # type: ignore[attr-defined]  # plain data
    assert lines == {
        "Bits per token": ["training", "validation"],
        "Bits per pixel": ["validation"],
    }


def test_last_and_best_are_told_apart(make_run: MakeRun) -> None:
    run = make_run("run")
    values = [(10, 20.0), (20, 23.5), (30, None), (40, 22.25)]
    lines = [json.dumps({"step": step, "val/psnr": value}) for step, value in values]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    table = sections(page_of(run))["summary"].blocks[1]
    assert isinstance(table, Table)
    assert [cell.text for cell in table.rows[0]] == [
        *("PSNR", "22.2500", "40", "23.5000", "20", "higher"),
    ]


def test_every_metric_is_in_a_chart(make_run: MakeRun) -> None:
    run = make_run("run")
    blocks = sections(page_of(run))["curves"].blocks
    charts = [chart for block in blocks if isinstance(block, Charts) for chart in block.charts]
    lines = sum(len(chart["lines"]) for chart in charts)  # type: ignore[arg-type]  # plain data
    logged = {
        name
        for line in (run / "metrics.jsonl").read_text().splitlines()
        for name in json.loads(line)
    }
    assert lines == len(logged - {"step"})
    losses = next(chart for chart in charts if chart["title"] == "Terms of the loss")
    total = next(line for line in losses["lines"] if line["name"] == "total")  # type: ignore[attr-defined]
    assert total["y"][4] is None  # a gap


@pytest.mark.parametrize("lines", ["", "{not json"])
def test_a_run_without_a_line_has_a_page(make_run: MakeRun, lines: str) -> None:
    run = make_run("run")
    (run / "metrics.jsonl").write_text(lines)
    page = page_of(run)
    assert page.subtitle == "No steps are logged yet"
    assert "No metric is logged yet." in words(sections(page)["curves"])


def test_a_run_that_is_not_finished_says_so(make_run: MakeRun) -> None:
    run = make_run("run", steps=400)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:100]))
    assert page_of(run).subtitle == "Not finished: 100 of 400 steps are logged"


def test_a_broken_tokenizer_is_a_sentence_and_the_rest_is_there(make_run: MakeRun) -> None:
    run = make_run("run")
    (run / "tokenizer/model.safetensors").write_bytes(b"no weights")
    found = sections(page_of(run))
    assert "The tokenizer cannot be loaded" in words(found["reconstructions"])
    assert {"curves", "progress", "configuration"} <= found.keys()
    assert "worst" not in found


def test_images_that_are_gone_are_a_sentence_and_the_rest_is_there(make_run: MakeRun) -> None:
    run = make_run("run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["train"] = "/nowhere/pictures"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    found = sections(page_of(run))
    assert "data.train: /nowhere/pictures does not exist" in words(found["reconstructions"])
    assert ("bits per pixel", "0.2442") in found["summary"].blocks[0].rows  # type: ignore[union-attr]


def test_a_run_of_sounds_shows_spectrograms_and_plays(
    make_run: MakeRun, hums: Path, sound_tokenizer: Path
) -> None:
    run = make_run("run")
    for folder in (run / "images", run / "tokenizer"):
        shutil.rmtree(folder)
    shutil.copytree(sound_tokenizer, run / "tokenizer")
    config = yaml.safe_load((run / "config.yaml").read_text())
    data = read_choice("data", "sound", None) | {"sample_rate": 8000, "length": 1600}
    del data["defaults"]
    config["data"] = data | {"train": str(hums), "val": str(hums)}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "images").mkdir()
    strip = in_rows(torch.zeros(2, 1, 1600), torch.ones(2, 1, 1600), rate=8000.0)
    Image.fromarray(strip).save(run / "images/step_00000010.png")
    page = page_of(run)
    found = sections(page)
    facts = dict(found["summary"].blocks[0].rows)  # type: ignore[union-attr]
    assert facts["sound size"] == "1,600 values"
    # 64 ids have 6 bits: two of them for 4 values, 8,000 of which are a second.
    assert (facts["tokens per sound"], facts["bits per value"]) == ("2 x 400 = 800", "3")
    assert facts["kbit/s"] == "24"
    assert "6 of 7 validation sounds: mean SI-SDR" in words(found["reconstructions"])
    _, viewer, players = found["reconstructions"].blocks
    assert [layer.name for layer in viewer.items[0].layers] == ["original", "reconstruction", "ids"]
    player = players.items[0]
    assert (player.name, player.caption) == (viewer.items[0].name, viewer.items[0].caption)
    assert [name for name, _ in player.sources] == ["original", "reconstruction"]
    (_, uri), _ = player.sources
    values, rate = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert (uri.partition(",")[0], len(values), rate) == ("data:audio/wav;base64", 1600, 8000)
    assert [item.name for item in found["progress"].blocks[1].items] == ["sound 1", "sound 2"]
    text = render(page)
    assert text.count("<audio controls") == 2 * 12
    assert f'src="{uri}"' in text


def test_a_continuous_codebook_has_no_histogram(make_run: MakeRun) -> None:
    found = sections(page_of(make_run("run", "codebook=kl", "codebook.size=null")))
    assert "codebook" not in found
    assert ("bits per pixel", "continuous") in found["summary"].blocks[0].rows  # type: ignore[union-attr]


def test_progress_shows_the_same_pictures_at_each_step(make_run: MakeRun) -> None:
    blocks = sections(page_of(make_run("run")))["progress"].blocks
    (viewer,) = [block for block in blocks if isinstance(block, Viewer)]
    assert len(viewer.items) == 4
    names = [layer.name for layer in viewer.items[0].layers]
    assert names == ["original", "step 10", "step 20", "step 30", "step 40"]
    assert viewer.right == "step 40"


def test_pictures_that_are_broken_are_left_out(make_run: MakeRun) -> None:
    run = make_run("run")
    (run / "images/step_00000020.png").write_bytes(b"half a pic")
    (run / "images/step_00000030.png").write_bytes(b"")
    viewer = sections(page_of(run))["progress"].blocks[-1]
    assert isinstance(viewer, Viewer)
    assert len(viewer.items[0].layers) == 3


def test_the_environment_is_shown_with_its_command(make_run: MakeRun) -> None:
    run = make_run("run")
    commands = ["vqtrain train data.train=https://a:b@host/x.tar", "vqtrain train resume=auto"]
    facts = {"commands": commands, "torch": "2", "GPUs": []}
    (run / "environment.json").write_text(json.dumps(facts))
    *codes, rows = sections(page_of(run))["environment"].blocks
    shown = ["vqtrain train data.train=https://host/x.tar", "vqtrain train resume=auto"]
    assert [code.text for code in codes] == shown  # type: ignore[union-attr]
    assert ("torch", "2") in rows.rows  # type: ignore[union-attr]
    (run / "environment.json").write_text("[]")
    assert "environment.json" in words(sections(page_of(run))["environment"])


def test_the_random_state_is_left_alone(make_run: MakeRun) -> None:
    run = make_run("run")
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002 - the global state is what is looked at
    page_of(run)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002 - as above


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", ""])
def test_a_configuration_that_cannot_be_read_is_refused(make_run: MakeRun, text: str) -> None:
    run = make_run("run")
    (run / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"cannot read .*config\.yaml"):
        page_of(run)


def test_of_large_images_the_middle_is_shown_and_the_page_says_so(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("run")
    assert "the middle is shown" not in words(sections(page_of(run))["reconstructions"])
    monkeypatch.setattr("vqtrain.reports.run.MOST_SIDE", 8)
    assert "the middle is shown, 8 px" in words(sections(page_of(run))["reconstructions"])


def test_a_configuration_that_says_little_has_a_page(make_run: MakeRun) -> None:
    run = make_run("run")
    for text in ("{}", "{data: 3, trainer: [], codebook: vq, name: null}"):
        (run / "config.yaml").write_text(text)
        page = page_of(run)
        assert page.title == "run"
        assert "no groups data and trainer" in words(sections(page)["reconstructions"])
