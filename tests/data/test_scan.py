"""What a scan finds in a tar, what it refuses, and when it is done again."""

import gzip
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from vqtrain.data.index import ImageIndex
from vqtrain.data.scan import index_pictures, is_picture, scan_tar
from vqtrain.errors import DataError


def keys_of(index: ImageIndex) -> list[str]:
    return [index.key(i) for i in range(len(index))]


@pytest.fixture
def no_tars(monkeypatch):
    """Return a switch after which no tar can be opened."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a tar was opened")

    return lambda: monkeypatch.setattr(tarfile, "open", refuse)


def test_members_are_found_with_their_bytes(tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"first", "0.txt": b"no", "1.png": b"second"})
    index = scan_tar(tar)
    assert keys_of(index) == ["0", "1"]
    assert [index.read(i) for i in range(2)] == [b"first", b"second"]
    assert index.path(0) == str(tar)


def test_keys_are_those_of_webdataset(tmp_path, write_tar):
    long = "d" * 120 + "/" + "n" * 120
    members = {
        "./train.set/0001.left.jpg": b"x",
        "0002.JPEG": b"x",
        "caf\u00e9.webp": b"x",
        f"{long}.png": b"x",
    }
    index = scan_tar(write_tar(tmp_path / "a.tar", members))
    assert keys_of(index) == ["train.set/0001", "0002", "caf\u00e9", long]


def test_hidden_members_are_passed_over(tmp_path, write_tar):
    names = ["._a.jpg", "__MACOSX/a.jpg", ".cache/a.jpg", "a/.b.jpg", "a.jpg"]
    index = scan_tar(write_tar(tmp_path / "a.tar", dict.fromkeys(names, b"x")))
    assert keys_of(index) == ["a"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.JPG", True), ("a.tif", True), ("a.b.png", True), ("a.txt", False), ("png", False)],
)
def test_pictures_are_told_by_their_suffix(name, expected):
    assert is_picture(name) is expected


def test_a_folder_named_like_a_picture_is_none(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("a.jpg")
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    assert len(scan_tar(tmp_path / "a.tar")) == 0


def test_a_second_scan_opens_no_tar(tmp_path, write_tar, no_tars):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"first", "1.png": b"second"})
    first = scan_tar(tar)
    no_tars()
    second = scan_tar(tar)
    assert keys_of(second) == keys_of(first)
    assert [second.read(i) for i in range(2)] == [b"first", b"second"]


def test_a_changed_tar_is_scanned_again(tmp_path, write_tar):
    tar = tmp_path / "a.tar"
    scan_tar(write_tar(tar, {"0.jpg": b"first"}))
    before = tar.stat().st_mtime_ns
    index = scan_tar(write_tar(tar, {"1.jpg": b"other"}))  # of the same size
    assert tar.stat().st_mtime_ns != before
    assert keys_of(index) == ["1"]
    assert index.read(0) == b"other"


def test_without_a_cache_folder_the_tar_is_scanned(tmp_path, write_tar, monkeypatch):
    monkeypatch.setenv("VQTRAIN_CACHE", "/dev/null/nowhere")
    assert keys_of(scan_tar(write_tar(tmp_path / "a.tar", {"0.jpg": b"x"}))) == ["0"]


@pytest.mark.parametrize("damage", [b"", b"garbage", None], ids=["empty", "garbage", "cut"])
def test_a_damaged_cache_entry_is_written_anew(tmp_path, write_tar, cache, no_tars, damage):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x"})
    scan_tar(tar)
    (entry,) = (cache / "tar-index").glob("*.npz")
    entry.write_bytes(entry.read_bytes()[:-40] if damage is None else damage)
    assert keys_of(scan_tar(tar)) == ["0"]
    no_tars()
    assert keys_of(scan_tar(tar)) == ["0"]


def test_a_full_disk_costs_the_cache_alone(tmp_path, write_tar, cache, monkeypatch):
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    assert keys_of(scan_tar(write_tar(tmp_path / "a.tar", {"0.jpg": b"x"}))) == ["0"]
    assert {path.suffix for path in (cache / "tar-index").iterdir()} == {".lock"}


def test_scans_at_the_same_time_open_the_tar_once(tmp_path, write_tar, cache, monkeypatch):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x"})
    opened, real_open = [], tarfile.open

    def slow_open(path: Path, mode: str) -> tarfile.TarFile:
        opened.append(path)
        time.sleep(0.1)
        return real_open(path, mode)

    monkeypatch.setattr(tarfile, "open", slow_open)
    threads = [threading.Thread(target=scan_tar, args=(tar,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [tar]
    assert {path.suffix for path in (cache / "tar-index").iterdir()} == {".npz", ".lock"}


def test_a_tar_cut_inside_a_member_is_refused(tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x" * 2000, "1.jpg": b"x" * 2000})
    tar.write_bytes(tar.read_bytes()[:4000])  # member 1 lies at 512 + 2048 + 512 = 3072 to 5072
    with pytest.raises(DataError, match=r"a\.tar is not a complete uncompressed tar: unexpected"):
        scan_tar(tar)


def test_a_tar_cut_inside_a_header_is_refused(tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x" * 2000, "1.jpg": b"x" * 2000})
    tar.write_bytes(tar.read_bytes()[:2700])
    with pytest.raises(DataError, match=r"a\.tar is damaged at byte 2560"):
        scan_tar(tar)


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x", "1.jpg": b"x"})
    content = bytearray(tar.read_bytes())
    content[1024 + 148 : 1024 + 156] = b"garbage!"  # the checksum of the second header
    tar.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar is damaged at byte 1024"):
        scan_tar(tar)


def test_a_tar_without_its_end_mark_is_read(tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x", "1.jpg": b"x"})
    tar.write_bytes(tar.read_bytes()[:2048])
    assert keys_of(scan_tar(tar)) == ["0", "1"]


@pytest.mark.parametrize("content", [b"", b"no tar" * 200, gzip.compress(b"x" * 5000)])
def test_what_is_no_tar_is_refused(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar is not a complete uncompressed tar"):
        scan_tar(tmp_path / "a.tar")


def test_a_tar_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*a\.tar: No such file"):
        scan_tar(tmp_path / "a.tar")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*folder\.tar: Is a directory"):
        scan_tar(tmp_path / "folder.tar")


def test_pictures_of_a_folder_are_keyed_by_their_path(tmp_path):
    (tmp_path / "cats").mkdir()
    for name in ("cats/1.a.jpg", "2.png"):
        (tmp_path / name).write_bytes(name.encode())
    index = index_pictures([tmp_path / "cats/1.a.jpg", tmp_path / "2.png"], root=tmp_path)
    assert keys_of(index) == ["cats/1.a", "2"]
    assert index.read(0) == b"cats/1.a.jpg"


def test_a_picture_behind_a_broken_link_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot read .*a\.png: No such file"):
        index_pictures([tmp_path / "a.png"], root=tmp_path)
