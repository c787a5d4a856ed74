"""How ids are used, sorted."""

from vqtrain.evaluation.results import CodebookUse
from vqtrain.reports.blocks import Charts, Facts, Table, Text
from vqtrain.reports.codebook import codebook_blocks, ids_by_frequency


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
