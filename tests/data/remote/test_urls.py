"""URLs: which are remote, what stands for one in an index, and how one is shown."""

import pytest

from vqtrain.data.remote.urls import RemoteFile, is_url, shareable


@pytest.mark.parametrize("url", ["s3://b/a#1-2-3.tar", "http://x/a.tar?b=#c", "gs://b/ \n.tar"])
def test_a_remote_file_travels_as_text(url):
    for file in (RemoteFile(url, 12, "0af"), RemoteFile(url, 0, "", "c0ffee")):
        assert RemoteFile.parse(file.text) == file


def test_a_query_is_no_part_of_the_name():
    assert RemoteFile("https://x/a.tar?b=c/d.png", 1, "").name == "https://x/a.tar"
    assert RemoteFile("s3://x/a?.tar", 1, "").name == "s3://x/a?.tar"


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


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        *((f"{scheme}://x/a.tar", True) for scheme in ("http", "https", "s3", "gs", "hf")),
        *(("pipe:curl http://x", False), ("/a/s3://b", False), ("ftp://x/a.tar", False)),
    ],
)
def test_urls_are_told_from_paths(path, expected):
    assert is_url(path) is expected
