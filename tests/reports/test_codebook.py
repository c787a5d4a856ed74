"""How ids are used, sorted."""

from pathlib import Path

import pytest
from PIL import Image

from vqtrain.evaluation.results import CodebookUse
from vqtrain.reports.blocks import Charts, Facts, Picture, Table, Text
from vqtrain.reports.codebook import code_blocks, codebook_blocks, ids_by_frequency


def codebook(**others: object) -> CodebookUse:
    known = {"size": 4, "tokens": 10, "ids_seen": [3], "usage": 0.75}
    return CodebookUse.of({**known, "histogram": [[5, 0, 1, 4]], **others})


def test_counts_are_sorted_shares() -> None:
    (line,) = ids_by_frequency("t", [[5, 0, 1, 4]])["lines"]  # type: ignore[misc]  # plain data
    assert line["x"] == [1, 2, 3, 4]
    assert line["y"] == [50, 40, 10, 0]


def test_one_codebook_is_told_of_in_facts() -> None:
    facts, charts = codebook_blocks({"": codebook()})
    assert isinstance(facts, Facts)
    assert dict(facts.rows)["never seen"] == "1"
    assert isinstance(charts, Charts)


def test_several_codebooks_are_a_row_and_a_curve_each() -> None:
    two = codebook(ids_seen=[3, 4], histogram=[[5, 0, 1, 4], [1, 2, 3, 4]])
    seen, figures, charts = codebook_blocks({"": two})
    assert isinstance(seen, Table)
    assert [[cell.text for cell in row] for row in seen.rows] == [
        ["codebook 1", "4", "3", "1"],
        ["codebook 2", "4", "4", "0"],
    ]
    assert isinstance(figures, Table)
    assert isinstance(charts, Charts)
    assert len(charts.charts[0]["lines"]) == 2  # type: ignore[arg-type]  # plain data


def test_a_codebook_too_large_for_a_histogram_has_figures() -> None:
    *_, last = codebook_blocks({"": codebook(histogram=None)})
    assert isinstance(last, Text)


GRID = {
    "shape": [8, 8],
    "left": {"mutual_information_bits": 0.5, "by_chance_bits": 0.01},
    "pairs": [
        {"neighbor": "upper", "id": n, "neighbor_id": 3, "count": 50, "bits": 4.0 - n}
        for n in range(8)
    ],
    "worst_ids": [{"id": 3, "share_of_tokens": 0.02, "share_of_error": 0.125}],
}


def test_single_ids_are_told_of_with_their_picture(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "codebook.png")
    found = codebook(grids=[{"name": "ids", **GRID}], left_out=["too much"])
    picture, neighbors, pairs, errors, note = code_blocks({"": found}, {"": tmp_path})
    assert isinstance(picture, Picture)
    assert picture.uri.startswith("data:image/webp")
    texts = [
        [cell.text for cell in block.rows[0]]
        for block in (neighbors, pairs, errors)
        if isinstance(block, Table)
    ]
    assert texts == [
        ["left", "0.500", "0.010"],
        ["0", "above", "3", "50", "4.00"],
        ["3", "12.50", "2.00"],
    ]
    assert note == Text(text="Left out: too much.", tone="note")


def test_of_many_grids_a_few_rows_each_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grids = [{"name": f"codebook {n}", **GRID} for n in range(1, 5)]
    _, pairs, _ = code_blocks({"": codebook(grids=grids)}, {"": tmp_path})
    assert isinstance(pairs, Table)
    assert pairs.heads[0] == "grid"
    assert len(pairs.rows) == 4 * 4
    # A picture that is too large is named.
    Image.new("RGB", (30, 20), "red").save(tmp_path / "codebook.png")
    monkeypatch.setattr("vqtrain.reports.codebook.PICTURE_BYTES", 10)
    first, *_ = code_blocks({"a": codebook(grids=grids)}, {"a": tmp_path})
    assert first == Text(text="codebook.png of a is left out to keep this page small.", tone="note")
