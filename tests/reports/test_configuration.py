"""A configuration as a table, without passwords."""

from vqtrain.reports.configuration import UNSET, configuration

MINE = {"seed": 0, "data": {"train": "https://me:pa55@host/a.tar", "val": None}}
THEIRS = {"seed": 1, "data": {"train": "https://host/a.tar", "val": None}, "run_dir": "x"}


def test_all_keys_are_listed_and_no_password() -> None:
    (table,) = configuration(MINE, None)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["seed", "0"],
        ["data.train", "https://host/a.tar"],
        ["data.val", "null"],
    ]


def test_another_run_stands_beside_with_what_differs() -> None:
    (table,) = configuration(MINE, ("other", THEIRS))
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows[0] == ["seed", "0", "1"]
    assert rows[3] == ["run_dir", UNSET, "x"]
    assert table.marked == {0, 3}
    assert "2 differ" in table.caption
