"""Which files below a folder are taken, which are not, and that people can know of it."""

import os

import pytest

from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.folders import describe_others, list_folder
from vqtrain.errors import DataError

BEGINNINGS = [
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\x10\0\0\0WEBP",
    b"\x93NUMPY",
    b"MM\0*",
]


def test_files_are_taken_by_their_suffix_or_their_first_bytes(tmp_path):
    names = ["a.jpg", "b.jpe", "c.JFIF", "d.avif", "e.mp4", "f.mp4", "a.txt", "a.2.txt", "x.txt"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    for number, beginning in enumerate(BEGINNINGS):
        (tmp_path / f"00{number}").write_bytes(beginning + b"...")
    (tmp_path / "README").write_bytes(b"RIFF a text")
    os.mkfifo(tmp_path / "pipe")
    expected = [*(f"00{number}" for number in range(5)), "a", "b", "c"]
    # A glob that finds files twice, and one by one, counts them once.
    for source in ("", "/*", "/**"):
        index = open_samples(f"{tmp_path}{source}", role="training")
        assert [index.key(i) for i in range(len(index))] == expected
        # a.txt and a.2.txt belong to a.jpg.
        assert index.others == {".mp4": 2, ".avif": 1, ".txt": 1, "": 2}
    assert index.select(index.offsets[:2]).others == index.others
    assert open_samples(str(tmp_path / "001"), role="training").key(0) == "001"
    with pytest.raises(DataError, match="README is neither a tar nor an image"):
        open_samples(str(tmp_path / "README"), role="training")


def test_lists_of_members_belong_to_their_tars(tmp_path):
    for name in ("s-0.tar", "s-0.members.npz", "s-0.json", "index.json"):
        (tmp_path / name).write_bytes(b"x")
    listing = list_folder(tmp_path)
    assert [path.name for path in listing.tars] == ["s-0.tar"]
    assert not listing.others


@pytest.mark.parametrize("ending", ["", "/*", "/**"])
def test_what_systems_keep_beside_pictures_is_passed_over(tmp_path, ending):
    for folder in ("@eaDir", "sub/@eaDir/a.jpg", "#recycle", "$RECYCLE.BIN", "__MACOSX", ".thumbs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "thumbnail.jpg").write_bytes(b"x")
    (tmp_path / "sub/a.jpg").write_bytes(b"x")
    index = open_samples(f"{tmp_path}{ending}", role="training")
    assert [index.key(i) for i in range(len(index))] == ["sub/a"]
    assert index.others == {}


@pytest.mark.parametrize("ending", ["", "/*"])
def test_a_folder_that_cannot_be_read_is_a_fault_beside_others(tmp_path, monkeypatch, ending):
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    real_scandir = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may read everything
    index = open_samples(f"{tmp_path}{ending}", role="training")
    assert index.key(0) == "a"
    (fault,) = index.faults
    assert (fault.shard, fault.key) == (str(tmp_path / "locked"), "")
    assert fault.reason == "cannot read this folder: Permission denied"
    with pytest.raises(
        DataError, match=r"holds no images: .*locked: cannot read this folder: Perm"
    ):
        open_samples(str(tmp_path / "locked"), role="training")


def test_few_suffixes_are_named():
    others = {".txt": 1200, "": 2, ".a": 1, ".b": 1, ".c": 1, ".d": 1, ".e": 1}
    assert describe_others(others) == (
        "1,207 files are neither images nor tars: .txt 1,200, no suffix 2, .a 1, .b 1, .c 1, "
        "2 more suffixes"
    )
    assert describe_others({".gz": 1}) == "1 file is neither an image nor a tar: .gz 1"
