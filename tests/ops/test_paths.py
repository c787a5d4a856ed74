"""Paths as people type them."""

from pathlib import Path

import pytest

from vqtrain.errors import ConfigError
from vqtrain.ops.paths import expand


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand("~/a") == tmp_path / "a"
    assert expand("a/~") == Path("a/~")
    assert expand("") == Path()


def test_a_user_that_is_not_known_is_named_but_a_file_of_that_name_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="~nosuch/x: there is no user 'nosuch'"):
        expand("~nosuch/x")
    (tmp_path / "~nosuch").mkdir()
    assert expand("~nosuch/x") == Path("~nosuch/x")
