"""Shards and their journals, by themselves."""

import io
import json
from hashlib import sha256

import numpy as np
import pytest

from vqtrain.data.faults import Fault
from vqtrain.data.tokens.shards import ShardWriter, progress_of, read_whole, to_npy

SAMPLES = [(f"cat/{number}", (("npy", b"ids"), ("txt", b"a cat"))) for number in range(3)]
FAULT = Fault(shard="a.tar", key="dog", reason="torn")


def test_a_shard_is_told_by_its_size_and_hash(tmp_path):
    writer = ShardWriter(state=tmp_path, name="shard-00000")
    writer.add(SAMPLES, [FAULT])
    (tmp_path / "out").mkdir()
    whole = writer.finish(tmp_path / "out")
    content = (tmp_path / "out/shard-00000.tar").read_bytes()
    assert whole == {
        "shard": {
            "name": "shard-00000.tar",
            "samples": 3,
            "bytes": len(content),
            "sha256": sha256(content).hexdigest(),
        },
        "skipped": [{"shard": "a.tar", "key": "dog", "reason": "torn"}],
    }
    assert read_whole(tmp_path, "shard-00000", tmp_path / "out") == whole
    assert [path.name for path in tmp_path.glob("shard-*")] == ["shard-00000.json"]


def test_the_journal_says_what_is_in_the_shard_after_each_batch(tmp_path):
    writer = ShardWriter(state=tmp_path, name="shard-00000")
    for sample in SAMPLES:
        writer.add([sample], [])
    writer.close()
    content = (tmp_path / "shard-00000.tar").read_bytes()
    lines = (tmp_path / "shard-00000.jsonl").read_text().splitlines()
    for number, note in enumerate(map(json.loads, lines), start=1):
        # Each of the two fields has a header and one block.
        assert (note["batches"], note["samples"], note["bytes"]) == (number, number, 2048 * number)
        assert note["sha256"] == sha256(content[: note["bytes"]]).hexdigest()


def test_a_writer_goes_on_with_what_was_left_out_before(tmp_path):
    first = ShardWriter(state=tmp_path, name="shard-00000")
    first.add(SAMPLES[:2], [FAULT])
    first.close()
    second = ShardWriter(state=tmp_path, name="shard-00000")
    assert (second.batches, second.samples, len(second.skipped)) == (1, 2, 1)
    second.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"shard": {"name": "x.tar"}}'])
def test_notes_that_are_damaged_are_as_good_as_none(tmp_path, content):
    (tmp_path / "shard-00000.json").write_text(content)
    assert read_whole(tmp_path, "shard-00000", tmp_path) is None


def test_whoever_watches_sees_whole_and_unfinished_shards(tmp_path):
    assert progress_of(tmp_path) == (0, 0)
    (tmp_path / "plan.json").write_text(json.dumps({"images": {"count": 9}}))
    whole = ShardWriter(state=tmp_path, name="shard-00000")
    whole.add(SAMPLES, [])
    (tmp_path / "out").mkdir()
    whole.finish(tmp_path / "out")
    unfinished = ShardWriter(state=tmp_path, name="shard-00001")
    unfinished.add(SAMPLES[:1], [])
    unfinished.close()
    (tmp_path / "shard-00002.jsonl").touch()
    assert progress_of(tmp_path) == (4, 9)


def test_ids_are_written_as_numpy_reads_them():
    token_ids = np.arange(6, dtype=np.uint16).reshape(2, 3)
    found = np.load(io.BytesIO(to_npy(token_ids)))
    np.testing.assert_array_equal(found, token_ids)
    assert found.dtype == np.uint16
