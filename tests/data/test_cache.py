"""Where the cache folder is, and how files are written whole."""

from pathlib import Path

import pytest

from vqtrain.data.cache import cache_folder, write_whole
from vqtrain.errors import DataError


def test_the_variable_names_the_folder(cache):
    assert cache_folder() == cache


def test_the_default_is_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("VQTRAIN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "vqtrain"


def test_a_relative_folder_becomes_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQTRAIN_CACHE", "here")
    assert cache_folder() == tmp_path / "here"


def test_without_a_home_the_variable_is_asked_for(monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("VQTRAIN_CACHE")
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(DataError, match="set VQTRAIN_CACHE"):
        cache_folder()


def test_a_file_is_written_whole(tmp_path):
    write_whole(tmp_path / "deep" / "file", b"x")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]
