"""What a scan finds in a tar, what it refuses, and when it is done again."""

import gzip
import io
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from vqtrain.data.faults import Fault
from vqtrain.data.media import IMAGE
from vqtrain.data.remote.files import find
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.scan import index_files, is_tar, scan_tar, write_members
from vqtrain.errors import DataError


def keys_of(index: SampleIndex) -> list[str]:
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
    names = ["._a.jpg", "__MACOSX/a.jpg", ".cache/a.jpg", "a/.b.jpg", "x/@eaDir/a.jpg", "a.jpg"]
    index = scan_tar(write_tar(tmp_path / "a.tar", dict.fromkeys(names, b"x")))
    assert keys_of(index) == ["a"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.JPG", True),
        ("a.tif", True),
        ("a.jpe", True),
        ("a.jfif", True),
        ("a.b.png", True),
        ("a.txt", False),
        ("png", False),
    ],
)
def test_pictures_are_told_by_their_suffix(name, expected):
    assert IMAGE.owns(name) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.TAR", True), ("a.tar.gz", True), ("a.tgz", True), ("a.tar.json", False), ("tar", False)],
)
def test_tars_are_told_by_their_suffix(name, expected):
    assert is_tar(name) is expected


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

    def slow_open(*, fileobj: io.BufferedReader, mode: str) -> tarfile.TarFile:
        opened.append(Path(fileobj.name))
        time.sleep(0.1)
        return real_open(fileobj=fileobj, mode=mode)

    monkeypatch.setattr(tarfile, "open", slow_open)
    threads = [threading.Thread(target=scan_tar, args=(tar,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [tar]
    assert {path.suffix for path in (cache / "tar-index").iterdir()} == {".npz", ".lock"}


def test_a_tar_cut_inside_a_member_gives_what_is_whole(tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {f"{i}.jpg": b"x" * 2000 for i in range(2)})
    tar.write_bytes(tar.read_bytes()[:4000])  # member 1 lies at 512 + 2048 + 512 = 3072 to 5072
    for _ in range(2):  # the second comes from the cache
        index = scan_tar(tar)
        assert keys_of(index) == ["0"]
        assert index.faults == (
            Fault(shard=str(tar), key="1", reason="the tar ends inside this image"),
        )


def test_a_tar_cut_inside_a_header_gives_what_is_whole(tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x" * 2000, "1.jpg": b"x" * 2000})
    tar.write_bytes(tar.read_bytes()[:2700])
    index = scan_tar(tar)
    assert keys_of(index) == ["0"]
    (fault,) = index.faults
    assert fault.reason == "the tar is damaged at byte 2560: what follows is lost"


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x", "1.jpg": b"x"})
    content = bytearray(tar.read_bytes())
    content[1024 + 148 : 1024 + 156] = b"garbage!"  # the checksum of the second header
    tar.write_bytes(content)
    index = scan_tar(tar)
    assert keys_of(index) == ["0"]
    assert [fault.reason for fault in index.faults] == [
        "the tar is damaged at byte 1024: what follows is lost"
    ]


def test_of_several_pictures_of_a_key_the_first_is_taken(tmp_path, write_tar):
    names = ["a.txt", "a.jpg", "a.seg.png", "b.seg.png", "b.jpg", "c.npy"]
    index = scan_tar(write_tar(tmp_path / "a.tar", {name: name.encode() for name in names}))
    assert keys_of(index) == ["a", "b", "c"]
    assert [index.read(i) for i in range(3)] == [b"a.jpg", b"b.seg.png", b"c.npy"]
    assert index.faults == ()


def test_a_members_file_spares_the_scan(tmp_path, write_tar, no_tars):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"first", "1.png": b"second"})
    beside = write_members(tar, offsets=[1536], sizes=[6], keys=["caf\u00e9"])
    assert beside == tmp_path / "a.members.npz"
    no_tars()
    index = scan_tar(tar)
    assert keys_of(index) == ["caf\u00e9"]
    assert index.read(0) == b"second"


@pytest.mark.parametrize("damage", ["other tar", "garbage", "place"])
def test_a_members_file_that_cannot_be_right_is_passed_over(tmp_path, write_tar, damage):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"first"})
    beside = write_members(
        tar, offsets=[10**6 if damage == "place" else 512], sizes=[5], keys=["x"]
    )
    if damage == "garbage":
        beside.write_bytes(b"garbage")
    if damage == "other tar":
        tar.write_bytes(tar.read_bytes() + bytes(512))
    assert keys_of(scan_tar(tar)) == ["0"]


@pytest.mark.parametrize("form", ["gnu", "0.1", "1.0"])
def test_a_member_with_holes_is_refused_and_the_rest_is_kept(
    tmp_path, write_tar, sparse_member, form
):
    rest = write_tar(tmp_path / "a.tar", {"1.png": b"whole"}).read_bytes()
    tar = tmp_path / "a.tar"
    tar.write_bytes(sparse_member("0.npy", form) + rest)
    with tarfile.open(tar) as opened:  # the fixture makes what it claims to make
        assert opened.extractfile("0.npy").read() == b"a" * 512 + bytes(3072) + b"z" * 512
    for _ in range(2):  # the second comes from the cache
        index = scan_tar(tar)
        assert keys_of(index) == ["1"]
        assert index.read(0) == b"whole"
        reason = "it is stored with holes: write the tar without --sparse (-S)"
        assert index.faults == (Fault(shard=str(tar), key="0", reason=reason),)


def test_links_in_a_tar_are_listed(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("0.png", tarfile.LNKTYPE), ("1.jpg", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "first.png"
            tar.addfile(member)
    assert [(fault.key, fault.reason) for fault in scan_tar(tmp_path / "a.tar").faults] == [
        (key, "it is a link to first.png: links in tars are not followed") for key in ("0", "1")
    ]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_that_follow_one_another_are_all_read(tmp_path, form):
    joined = tmp_path / "joined.tar"
    names = [f"{'long' * 60}/caf\u00e9-{number}.png" for number in range(3)]
    with joined.open("wb") as file:
        for name in names:
            with tarfile.open(fileobj=file, mode="w", format=form) as tar:
                member = tarfile.TarInfo(name)
                member.size = 5
                tar.addfile(member, io.BytesIO(name[-7:].encode()[:5]))
    index = scan_tar(joined)
    assert keys_of(index) == [name.removesuffix(".png") for name in names]
    assert [index.read(i) for i in range(3)] == [name[-7:].encode()[:5] for name in names]
    assert index.faults == ()
    joined.write_bytes(joined.read_bytes() + b"no tar")
    assert [fault.reason for fault in scan_tar(joined).faults] == [
        f"the tar is damaged at byte {3 * tarfile.RECORDSIZE}: what follows is lost"
    ]


def test_samples_without_an_image_are_counted_by_suffix(tmp_path, write_tar):
    names = ["0.avif", "0.txt", "1.JPE", "1.txt", "2", "3", "4.webm"]
    members = {**dict.fromkeys(names, b"x"), "2": b"\x89PNG\r\n\x1a\n..."}
    for _ in range(2):  # the second comes from the cache
        index = scan_tar(write_tar(tmp_path / "a.tar", members))
        assert keys_of(index) == ["1", "2"]
        assert index.others == {".avif": 1, ".txt": 1, "": 1, ".webm": 1}


def test_a_tar_without_its_end_mark_is_read(tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x", "1.jpg": b"x"})
    tar.write_bytes(tar.read_bytes()[:2048])
    assert keys_of(scan_tar(tar)) == ["0", "1"]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "the file is empty"), (b"no tar" * 200, "it is not a tar (")]
)
def test_what_is_no_tar_is_a_fault(tmp_path, content, reason):
    (tmp_path / "a.tar").write_bytes(content)
    index = scan_tar(tmp_path / "a.tar")
    assert len(index) == 0
    (fault,) = index.faults
    assert fault.shard == str(tmp_path / "a.tar")
    assert fault.key == ""
    assert fault.reason.startswith(reason)


def test_a_compressed_tar_is_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"x" * 5000))
    with pytest.raises(DataError, match=r"a\.tar\.gz is compressed with gzip: uncompress it"):
        scan_tar(tmp_path / "a.tar.gz")


def test_a_tar_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*a\.tar: No such file"):
        scan_tar(tmp_path / "a.tar")
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*folder\.tar: it is not a regular file"):
        scan_tar(tmp_path / "folder.tar")


def test_pictures_of_a_folder_are_keyed_by_their_path(tmp_path):
    (tmp_path / "cats").mkdir()
    for name in ("cats/1.a.jpg", "2.png"):
        (tmp_path / name).write_bytes(name.encode())
    index = index_files([tmp_path / "cats/1.a.jpg", tmp_path / "2.png"], root=tmp_path)
    assert keys_of(index) == ["cats/1.a", "2"]
    assert index.read(0) == b"cats/1.a.jpg"


def test_a_picture_behind_a_broken_link_is_a_fault(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b.png").write_bytes(b"x")
    index = index_files([tmp_path / "a.png", tmp_path / "b.png"], root=tmp_path)
    assert keys_of(index) == ["b"]
    (fault,) = index.faults
    assert (fault.shard, fault.key) == (str(tmp_path / "a.png"), "a")
    assert fault.reason.startswith("cannot read it: No such file")


@pytest.mark.usefixtures("small_parts")
def test_a_remote_tar_is_scanned_through_its_parts(server, tmp_path, write_tar):
    members = {f"{i}.jpg": bytes([i]) * 700 for i in range(3)}
    content = write_tar(tmp_path / "a.tar", members).read_bytes()
    (file,) = find(server.put("a.tar", content))
    index = scan_tar(file)
    assert keys_of(index) == ["0", "1", "2"]
    assert [index.read(i) for i in range(3)] == list(members.values())
    assert server.count("a.members.npz") == 1
    assert keys_of(scan_tar(find(f"{server.url}/a.tar")[0])) == ["0", "1", "2"]
    # Two looks at its size; some of the parts may still be on their way, read ahead.
    parts = [part for name, part in server.requests if name == "a.tar"]
    assert parts.count("bytes=0-0") == 2
    assert len(set(parts)) == len(parts) - 1


def test_a_remote_members_file_is_one_request(server, tmp_path, write_tar):
    tar = write_tar(tmp_path / "a.tar", {"0.jpg": b"x" * 700})
    server.put(
        "a.members.npz", write_members(tar, offsets=[512], sizes=[700], keys=["k"]).read_bytes()
    )
    (file,) = find(server.put("a.tar", tar.read_bytes()))
    server.requests.clear()
    index = scan_tar(file)
    assert keys_of(index) == ["k"]
    assert [name for name, _ in server.requests] == ["a.members.npz"]
    assert index.read(0) == b"x" * 700


@pytest.mark.usefixtures("small_parts")
def test_a_remote_tar_that_is_cut_off_has_a_fault(server, tmp_path, write_tar):
    content = write_tar(
        tmp_path / "a.tar", {"0.jpg": b"x" * 2000, "1.jpg": b"x" * 2000}
    ).read_bytes()
    (file,) = find(server.put("a.tar", content[:4000]))
    index = scan_tar(file)
    assert keys_of(index) == ["0"]
    assert index.faults == (
        Fault(shard=f"{server.url}/a.tar", key="1", reason="the tar ends inside this image"),
    )
