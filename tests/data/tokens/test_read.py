"""Tokens read back, also from files that somebody has tampered with."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vqtrain.data.tokens.read import read
from vqtrain.errors import DataError


@pytest.fixture
def out(index_of, plan_of, written, tmp_path):
    written(plan_of(index_of(), shard_size=100), tmp_path / "out")
    return tmp_path / "out"


def rewrite(out: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    """Put another tar in the place of the shard, and its size into the index."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    content = file.getvalue()
    (out / "shard-00000.tar").write_bytes(content)
    edit(out, lambda index: index["files"][0].update(bytes=len(content)))


def edit(out: Path, change: object) -> None:
    index = json.loads((out / "index.json").read_text())
    change(index)
    (out / "index.json").write_text(json.dumps(index))


def member(name: str, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def npy(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


IDS = np.zeros((2, 2), np.uint16)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("layout", ["webdataset", "flat"])
def test_samples_come_in_the_order_of_the_images(
    index_of, plan_of, written, expected, tmp_path, layout, verify
):
    written(plan_of(index_of(5), layout=layout), tmp_path / "out")
    samples = list(read(tmp_path / "out", verify=verify))
    good = [i for i in range(10) if i != 5]
    assert [sample.key for sample in samples] == [f"{i:03d}" for i in good]
    assert [dict(s.fields) for s in samples] == [{"txt": f"caption {i}".encode()} for i in good]
    for sample, row in zip(samples, expected(5), strict=True):
        np.testing.assert_array_equal(sample.token_ids, row)
        assert sample.token_ids.dtype == np.uint16


def test_a_changed_byte_is_found_when_asked_for(out):
    file = out / "shard-00000.tar"
    content = bytearray(file.read_bytes())
    content[512 + 128] ^= 1  # the first id
    file.write_bytes(content)
    assert len(list(read(out))) == 10
    with pytest.raises(DataError, match="its sha256 is another one"):
        list(read(out, verify=True))


@pytest.mark.parametrize(
    "key", ["../../evil", "/etc/evil", "a/../../evil", "..\\evil", "a//b", "./a"]
)
def test_a_key_that_leads_elsewhere_is_refused(out, key):
    rewrite(out, [member(f"{key}.npy", npy(IDS))])
    with pytest.raises(DataError, match="which is no sample of tokens"):
        list(read(out))


def test_a_link_in_a_tar_is_refused(out):
    link = tarfile.TarInfo("a.npy")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    rewrite(out, [(link, b"")])
    with pytest.raises(DataError, match=r"'a\.npy', which is no file"):
        list(read(out))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        npy(IDS.astype(np.uint32)),
        npy(np.zeros((2, 3), np.uint16)),
        npy(IDS)[:-1],
        npy(IDS) + b"\0",
        npy(np.array([[{}, {}], [{}, {}]], dtype=object), allow_pickle=True),
        npy(IDS).replace(b"(2, 2)", b"(9999999999, 2)".ljust(6)),
    ],
)
def test_ids_of_another_form_are_refused_and_never_unpickled(out, content):
    rewrite(out, [member("a.npy", content)])
    with pytest.raises(DataError, match="the ids of 'a' in "):
        list(read(out))


def test_a_sample_without_ids_is_refused(out):
    rewrite(out, [member("a.txt", b"a caption")])
    with pytest.raises(DataError, match="holds 'a', which is no sample of tokens"):
        list(read(out))


def test_a_header_that_claims_more_than_there_is_asks_for_no_memory(out):
    info = tarfile.TarInfo("a.npy")
    info.size = 10_000_000_000
    header = info.tobuf(tarfile.GNU_FORMAT)
    (out / "shard-00000.tar").write_bytes(header + npy(IDS))
    edit(out, lambda index: index["files"][0].update(bytes=len(header + npy(IDS))))
    with pytest.raises(DataError, match=r"ends inside 'a\.npy'"):
        list(read(out))


def test_what_is_no_tar_is_refused(out):
    file = out / "shard-00000.tar"
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(DataError, match="cannot read"):
        list(read(out))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.update(format="other"), "is not of vqtrain tokenize"),
        (lambda i: i.update(version=2), "holds tokens of version 2, this vqtrain reads 1"),
        (lambda i: i.update(files=None), "is damaged: it lacks tokens or files"),
        (lambda i: i["tokens"].update(dtype="object"), "is damaged: it lacks tokens or files"),
        (lambda i: i["files"][0].update(name="../x.tar"), "names a file outside of its folder"),
        (lambda i: i["files"][0].update(name="/etc/passwd"), "outside of its folder"),
        (lambda i: i["files"][0].update(bytes=7), "is missing or has changed"),
    ],
)
def test_an_index_that_is_not_right_is_refused(out, change, message):
    edit(out, change)
    with pytest.raises(DataError, match=message):
        list(read(out))


def test_a_folder_that_is_not_complete_says_how_to_go_on(
    index_of, plan_of, written, stopping, tmp_path
):
    with pytest.raises(KeyboardInterrupt):
        written(plan_of(index_of()), tmp_path / "out", encode=stopping(1))
    with pytest.raises(DataError, match="run the same vqtrain tokenize again"):
        list(read(tmp_path / "out"))
    with pytest.raises(DataError, match="holds no tokens"):
        list(read(tmp_path))


def test_a_flat_array_of_another_form_is_refused(index_of, plan_of, written, tmp_path):
    written(plan_of(index_of(), layout="flat"), tmp_path / "out")
    file = tmp_path / "out/tokens.npy"
    np.save(file, np.load(file).view(np.int16))
    with pytest.raises(DataError, match=r"tokens\.npy is int16 \[10, 2, 2\], not as its index"):
        list(read(tmp_path / "out"))
