"""Cells of tables: what is shown, and by what they are sorted."""

import math

import pytest

from vqtrain.reports.blocks import MISSING, figure, number, table, word


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234567, "1,234,567"), (2.0, "2"), (0.12345, "0.1235"), (0.00002, "2e-05"), (-0.5, "-0.5")],
)
def test_a_number_is_written_for_people(value: float, shown: str) -> None:
    assert figure(value) == shown


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "12", True])
def test_what_is_no_number_is_missing(value: object) -> None:
    cell = number(value)
    assert (cell.text, cell.value, cell.is_number) == (MISSING, None, True)


def test_a_cell_that_a_row_lacks_is_like_its_column() -> None:
    made = table("t", [{"a": word("x")}, {"b": number(1), "a": word("y")}])
    assert made.heads == ["a", "b"]
    assert [[cell.text for cell in row] for row in made.rows] == [["x", MISSING], ["y", "1"]]
    assert made.rows[0][1].is_number


def test_a_word_is_sorted_by_its_letters_and_nothing_is_missing() -> None:
    assert word("Beta").value == "beta"
    assert (word(None).text, word("").value) == (MISSING, None)
