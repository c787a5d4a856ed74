"""Rows of a leaderboard: their order, their keys and their file."""

import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from vqtrain.evaluation.leaderboard import FAILED, MEASURED, Board, Row, ranked, row_key, save, show
from vqtrain.evaluation.results import CodebookUse, TokenizerResult


def row(name: str, **metrics: float | None) -> Row:
    codebook = CodebookUse(size=16, usage=0.5, histogram=[[1] * 16])
    result = TokenizerResult(
        image_size=32, tokens_per_image=64, bits_per_pixel=0.25, metrics=metrics, codebook=codebook
    )
    return Row(name=name, note="", command="vqtrain", state=MEASURED, result=result)


BROKEN = Row(name="broken", note="", command="vqtrain", state=FAILED, reason="no such file")


def test_the_best_in_the_first_metric_comes_first_and_what_has_no_figures_last() -> None:
    rows = [BROKEN, row("a", psnr=20.0, rfid=1.0), row("none", psnr=None), row("b", psnr=21.0)]
    assert [each.name for each in ranked(rows)] == ["b", "a", "broken", "none"]
    by_distance = [row("a", **{"rfid@8": 9.0}), row("b", **{"rfid@8": 3.5})]
    assert [each.name for each in ranked(by_distance)] == ["b", "a"]


def test_a_key_is_that_of_tokenizer_images_and_protocol() -> None:
    key = row_key("a", "b", ["c", "d"])
    assert key == row_key("a", "b", ["c", "d"])
    others = [row_key("x", "b", ["c", "d"]), row_key("a", "x", ["c", "d"])]
    others += [
        row_key("a", "b", ["c", "x"]),
        row_key("a", "b", ["c d"]),
        row_key("a", "b", ["d", "c"]),
    ]
    assert len({key, *others}) == 6


def test_a_leaderboard_is_saved_and_shown_with_what_failed(tmp_path: Path) -> None:
    board = Board(
        title="All",
        images={"source": "demo", "count": 4, "digest": "00"},
        protocol={"image_size": "32"},
        rows=[row("a", psnr=20.0), replace(row("kl", psnr=19.0), note="continuous"), BROKEN],
    )
    save(board, tmp_path)
    known = json.loads((tmp_path / "leaderboard.json").read_text())
    assert (known["format"], known["title"]) == ("vqtrain-leaderboard", "All")
    assert [each["state"] for each in known["rows"]] == ["measured", "measured", "failed"]
    assert known["rows"][0]["metrics"] == {"psnr": 20.0}
    assert known["rows"][0]["codebook"] == {"usage": 0.5}  # without the histogram
    assert "metrics" not in known["rows"][2]
    printed = io.StringIO()
    show(board, Console(file=printed, width=80))
    assert printed.getvalue().splitlines()[1].split() == ["a", "64", "0.2500", "20.0000"]
    assert "failed      broken: no such file" in printed.getvalue()
