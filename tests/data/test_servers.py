"""What servers hold is found, and the file systems of all schemes are asked as they are meant."""

from types import SimpleNamespace

import fsspec
import pytest
from gcsfs import GCSFileSystem
from huggingface_hub import HfApi, HfFileSystem

from vqtrain.data import servers
from vqtrain.data.remote import read
from vqtrain.data.servers import RemoteFile, ask, find, read_small, shareable
from vqtrain.errors import DataError


@pytest.fixture
def fresh_file_systems():
    servers.file_system.cache_clear()
    yield
    servers.file_system.cache_clear()


@pytest.mark.parametrize("url", ["s3://b/a#1-2-3.tar", "http://x/a.tar?b=#c", "gs://b/ \n.tar"])
def test_a_remote_file_travels_as_text(url):
    for file in (RemoteFile(url, 12, "0af"), RemoteFile(url, 0, "", "c0ffee")):
        assert RemoteFile.parse(file.text) == file


def test_a_query_is_no_part_of_the_name():
    assert RemoteFile("https://x/a.tar?b=c/d.png", 1, "").name == "https://x/a.tar"
    assert RemoteFile("s3://x/a?.tar", 1, "").name == "s3://x/a?.tar"


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


def test_missing_credentials_are_named():
    class NoCredentialsError(Exception):
        pass

    def fail() -> None:
        raise NoCredentialsError("Unable to locate credentials")

    with pytest.raises(DataError, match=r"no credentials to read s3://b/a: .*FSSPEC_S3_ANON"):
        ask("s3://b/a", fail, is_known=False)


def test_a_mistake_in_the_program_is_not_repeated():
    calls = []

    def fail() -> None:
        calls.append(1)
        raise TypeError("a mistake")

    with pytest.raises(TypeError, match="a mistake"):
        ask("s3://b/a", fail, is_known=True)
    assert calls == [1]


@pytest.mark.usefixtures("fresh_file_systems")
def test_hf_files_are_read_at_one_commit(monkeypatch):
    asked = []

    def resolve_path(_self: object, path: str) -> SimpleNamespace:
        return SimpleNamespace(
            repo_type="dataset",
            repo_id="org/name",
            revision="main",
            path_in_repo=path.partition("name/")[2],
        )

    def glob(_self: object, path: str, **_options: object) -> dict[str, dict[str, object]]:
        asked.append(path)
        found = path.replace("*", "a")
        return {found: {"name": found, "type": "file", "size": 3, "blob_id": "b"}}

    def cat_file(_self: object, path: str, start: int, end: int) -> bytes:
        asked.append(path)
        return b"abc"[start:end]

    monkeypatch.setattr(HfFileSystem, "resolve_path", resolve_path)
    monkeypatch.setattr(HfFileSystem, "glob", glob)
    monkeypatch.setattr(HfFileSystem, "cat_file", cat_file)
    monkeypatch.setattr(HfApi, "repo_info", lambda *_a, **_o: SimpleNamespace(sha="c0ffee"))
    (file,) = find("hf://datasets/org/name/*.tar")
    assert (file.url, file.revision) == ("hf://datasets/org/name/a.tar", "c0ffee")
    assert read(file.text, 0, 2) == b"ab"
    assert asked == ["datasets/org/name@c0ffee/*.tar", "datasets/org/name@c0ffee/a.tar"]


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
    assert servers.fetch(file, 0, 3) == b"abc"
    with pytest.raises(servers.ChangedError):
        servers.fetch(file, 0, 3)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("vqtrain train data.train='s3://key:secret@bucket/{0..9}.tar'", "s3://bucket/{0..9}.tar"),
        ("name@host", "name@host"),
        ("https://host/a@b.tar", "https://host/a@b.tar"),
    ],
)
def test_urls_lose_their_passwords(text: str, clean: str) -> None:
    assert clean in shareable(text)
    assert "secret" not in shareable(text)


def test_the_home_folder_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert shareable("data.train=/home/alice/a.tar 'x=/home/alice'") == "data.train=~/a.tar 'x=~'"
    assert shareable("/home/alice2/a /mnt/home/alice/x") == "/home/alice2/a /mnt/home/alice/x"
