"""A configuration as a table, without passwords."""

import pytest

from vqtrain.reports.configuration import UNSET, configuration, without_passwords

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
    assert table.differing == {0, 3}
    assert "2 differ" in table.caption


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("vqtrain train data.train='s3://key:secret@bucket/{0..9}.tar'", "s3://bucket/{0..9}.tar"),
        ("name@host", "name@host"),
        ("https://host/a@b.tar", "https://host/a@b.tar"),
    ],
)
def test_urls_lose_their_passwords(text: str, clean: str) -> None:
    assert clean in without_passwords(text)
    assert "secret" not in without_passwords(text)
