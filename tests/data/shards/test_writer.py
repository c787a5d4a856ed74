"""Shards and their journals, by themselves."""

import io
import json
import tarfile
from hashlib import sha256

import pytest

from vqtrain.data.faults import Fault
from vqtrain.data.shards.writer import ShardWriter, progress_of, read_whole, tar_members

SAMPLES = [(f"cat/{number}", (("npy", b"ids"), ("txt", b"a cat"))) for number in range(3)]
FAULT = Fault(shard="a.tar", key="dog", reason="torn")


def add(writer: ShardWriter, count: int, *faults: Fault) -> None:
    writer.add(
        tar_members(SAMPLES[:count]), samples=count, skipped=faults, notes=[[1, "x"]] * count
    )


def test_a_shard_is_described_by_its_size_and_hash(tmp_path):
    writer = ShardWriter(state=tmp_path, name="train/shard-00000")
    add(writer, 3, FAULT)
    (tmp_path / "out").mkdir()
    whole = writer.finish(tmp_path / "out")
    content = (tmp_path / "out/train/shard-00000.tar").read_bytes()
    assert whole == {
        "shard": {
            "name": "train/shard-00000.tar",
            "samples": 3,
            "bytes": len(content),
            "sha256": sha256(content).hexdigest(),
        },
        "writes": 1,
        "skipped": [{"shard": "a.tar", "key": "dog", "reason": "torn"}],
        "notes": [[1, "x"]] * 3,
    }
    assert read_whole(tmp_path, "train/shard-00000", tmp_path / "out") == whole
    assert [path.name for path in tmp_path.glob("*shard-*")] == ["train-shard-00000.json"]


def test_members_are_those_that_tarfile_writes():
    fields = (("png", b"x" * 700), ("_meta.json", b"{}"), ("cls", b"7"))
    long = f"{'d' * 120}/\u732b\udcff"
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for key in ("a", long):
            for name, content in fields:
                member = tarfile.TarInfo(f"{key}.{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        length = tar.offset
    found = tar_members([("a", fields), (long, fields)])
    assert found == expected.getvalue()[:length]
    assert tar_members([]) == b""


def test_the_journal_says_what_is_in_the_shard_after_each_batch(tmp_path):
    writer = ShardWriter(state=tmp_path, name="shard-00000")
    for _ in SAMPLES:
        add(writer, 1)
    writer.close()
    content = (tmp_path / "shard-00000.part").read_bytes()
    lines = (tmp_path / "shard-00000.jsonl").read_text().splitlines()
    for number, line in enumerate(map(json.loads, lines), start=1):
        # Each of the two fields has a header and one block.
        assert (line["writes"], line["samples"], line["bytes"]) == (number, number, 2048 * number)
        assert line["sha256"] == sha256(content[: line["bytes"]]).hexdigest()


def test_a_writer_continues_with_what_was_skipped_before(tmp_path):
    first = ShardWriter(state=tmp_path, name="shard-00000")
    add(first, 2, FAULT)
    first.close()
    second = ShardWriter(state=tmp_path, name="shard-00000")
    assert (second.writes, second.samples, len(second.skipped)) == (1, 2, 1)
    assert second.notes == [[1, "x"]] * 2
    second.close()
    third = ShardWriter(state=tmp_path, name="shard-00000", is_new=True)
    assert (third.writes, third.samples, third.bytes, third.skipped) == (0, 0, 0, [])
    third.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"shard": {"name": "x.tar"}}'])
def test_notes_that_are_damaged_are_as_good_as_none(tmp_path, content):
    (tmp_path / "shard-00000.json").write_text(content)
    assert read_whole(tmp_path, "shard-00000", tmp_path) is None


def test_whoever_watches_sees_whole_and_unfinished_shards(tmp_path):
    assert progress_of(tmp_path) == 0
    whole = ShardWriter(state=tmp_path, name="shard-00000")
    add(whole, 3)
    (tmp_path / "out").mkdir()
    whole.finish(tmp_path / "out")
    unfinished = ShardWriter(state=tmp_path, name="shard-00001")
    add(unfinished, 1)
    unfinished.close()
    (tmp_path / "shard-00002.jsonl").touch()
    assert progress_of(tmp_path) == 4
