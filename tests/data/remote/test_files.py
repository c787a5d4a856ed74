"""Remote files are found, and the file systems of all schemes are called as they should be."""

from types import SimpleNamespace

import fsspec
import pytest
from gcsfs import GCSFileSystem
from huggingface_hub import HfApi, HfFileSystem

from vqtrain.data.remote import files
from vqtrain.data.remote.files import find, read_small
from vqtrain.data.remote.reading import read
from vqtrain.data.remote.retry import ChangedError
from vqtrain.errors import DataError


@pytest.fixture
def fresh_file_systems():
    files.file_system.cache_clear()
    yield
    files.file_system.cache_clear()


def test_a_small_file_may_be_missing(server):
    url = server.put("a.json", b"{}")
    assert read_small(url) == b"{}"
    assert read_small(f"{url}x") is None
    server.troubles = [403]
    assert read_small(url) is None
    server.troubles = [500]
    assert read_small(url) == b"{}"


def test_an_empty_file_is_found(server):
    (file,) = find(server.put("a.tar", b""))
    assert file.size == 0


def test_a_forbidden_file_is_named(server):
    server.troubles = [403]
    with pytest.raises(DataError, match=r"no access to http\S*/a\.tar: the server answers 403"):
        find(server.put("a.tar", b"x"))


@pytest.mark.usefixtures("small_parts")
def test_a_server_without_ranges_serves_small_files_alone(server):
    server.has_ranges = False
    (file,) = find(server.put("small.png", b"x" * 900))
    assert read(file.text, 100, 10) == b"x" * 10
    with pytest.raises(DataError, match=r"/large\.tar cannot be read: its server ignores Range"):
        find(server.put("large.tar", b"x" * 1001))


@pytest.mark.usefixtures("fresh_file_systems")
def test_a_missing_library_is_named(monkeypatch):
    def fail(*_arguments: object, **_options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", fail)
    with pytest.raises(DataError, match=r's3:// needs: pip install "vqtrain\[remote\]"$'):
        find("s3://b/a.tar")


@pytest.mark.usefixtures("fresh_file_systems")
def test_hf_files_are_read_at_one_commit(monkeypatch):
    requested = []

    def resolve_path(_self: object, path: str) -> SimpleNamespace:
        return SimpleNamespace(
            repo_type="dataset",
            repo_id="org/name",
            revision="main",
            path_in_repo=path.partition("name/")[2],
        )

    def glob(_self: object, path: str, **_options: object) -> dict[str, dict[str, object]]:
        requested.append(path)
        found = path.replace("*", "a")
        return {found: {"name": found, "type": "file", "size": 3, "blob_id": "b"}}

    def cat_file(_self: object, path: str, start: int, end: int) -> bytes:
        requested.append(path)
        return b"abc"[start:end]

    monkeypatch.setattr(HfFileSystem, "resolve_path", resolve_path)
    monkeypatch.setattr(HfFileSystem, "glob", glob)
    monkeypatch.setattr(HfFileSystem, "cat_file", cat_file)
    monkeypatch.setattr(HfApi, "repo_info", lambda *_a, **_o: SimpleNamespace(sha="c0ffee"))
    (file,) = find("hf://datasets/org/name/*.tar")
    assert (file.url, file.revision) == ("hf://datasets/org/name/a.tar", "c0ffee")
    assert read(file.text, 0, 2) == b"ab"
    assert requested == ["datasets/org/name@c0ffee/*.tar", "datasets/org/name@c0ffee/a.tar"]


@pytest.mark.usefixtures("fresh_file_systems")
def test_gs_files_are_read_and_checked(monkeypatch):
    generations = iter("112")

    def info(_self: object, path: str, **_options: object) -> dict[str, object]:
        return {"name": path, "type": "file", "size": 3, "generation": next(generations)}

    def cat_file(_self: object, path: str, start: int, end: int) -> bytes:
        assert path == "bucket/a.tar"
        return b"abc"[start:end]

    monkeypatch.setattr(GCSFileSystem, "__init__", lambda *_a, **_o: None)
    monkeypatch.setattr(GCSFileSystem, "info", info)
    monkeypatch.setattr(GCSFileSystem, "cat_file", cat_file)
    (file,) = find("gs://bucket/a.tar")
    assert files.fetch(file, 0, 3) == b"abc"
    with pytest.raises(ChangedError):
        files.fetch(file, 0, 3)
