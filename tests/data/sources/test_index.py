"""Reading by position, joining and selecting, and which images are held out."""

import os
import pickle
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from vqtrain.data.faults import Fault
from vqtrain.data.sources.index import SampleIndex, hold_out
from vqtrain.errors import BadSampleError, DataError


def make_index(records: list[tuple[str, int, int, str]]) -> SampleIndex:
    """Index (path, offset, size, key) records as they come."""
    paths = tuple(dict.fromkeys(path for path, _, _, _ in records))
    return SampleIndex(
        paths=paths,
        path_ids=np.array([paths.index(path) for path, _, _, _ in records], dtype=np.int32),
        offsets=np.array([offset for _, offset, _, _ in records], dtype=np.int64),
        sizes=np.array([size for _, _, size, _ in records], dtype=np.int64),
        keys=np.array([key.encode() for _, _, _, key in records], dtype=np.bytes_),
        weights=np.ones(len(records), np.float32),
        ratios=np.full(len(records), np.nan, np.float32),
        stills=np.zeros(len(records), bool),
    )


def records_of(index: SampleIndex) -> list[tuple[str, int, int, str]]:
    return [
        (index.path(i), int(index.offsets[i]), int(index.sizes[i]), index.key(i))
        for i in range(len(index))
    ]


@pytest.fixture
def letters(tmp_path) -> SampleIndex:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"abcdef")
    second.write_bytes(b"xyz")
    return make_index(
        [(str(first), 1, 2, "bc"), (str(second), 0, 3, "xyz"), (str(first), 5, 1, "f")]
    )


def test_read_takes_exactly_the_bytes_of_an_image(letters):
    assert [letters.read(i) for i in range(len(letters))] == [b"bc", b"xyz", b"f"]


def test_keys_may_be_any_unicode():
    index = make_index([("x", 0, 1, "ordner/\u00fcber \u6f22")])
    assert index.key(0) == "ordner/\u00fcber \u6f22"


def test_select_keeps_the_order_given(letters):
    selected = letters.select(np.array([2, 0]))
    assert [selected.read(i) for i in range(2)] == [b"f", b"bc"]
    assert [selected.key(i) for i in range(2)] == ["f", "bc"]


def test_concatenate_puts_records_one_after_another(letters):
    joined = SampleIndex.concatenate([letters.select(np.array([1])), letters])
    assert records_of(joined) == [records_of(letters)[1], *records_of(letters)]
    assert [joined.read(i) for i in range(4)] == [b"xyz", b"bc", b"xyz", b"f"]


def test_concatenate_of_nothing_is_empty():
    assert len(SampleIndex.concatenate([])) == 0


def test_an_index_survives_pickling_after_a_read(letters):
    letters.read(0)
    assert pickle.loads(pickle.dumps(letters)).read(1) == b"xyz"


# Python 3.12 and later warn of a fork beside torch's threads, which this child does not touch.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_reads_the_same_files(letters):
    letters.read(0)
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(send, letters.read(1) + letters.read(0))
        os._exit(0)
    os.waitpid(child, 0)
    assert letters.read(2) == b"f"
    assert os.read(receive, 100) == b"xyzbc"
    os.close(receive)
    os.close(send)


def test_open_files_stay_few(tmp_path):
    records = []
    for i in range(300):
        (tmp_path / f"{i}").write_bytes(bytes([i % 256]))
        records.append((str(tmp_path / f"{i}"), 0, 1, f"{i}"))
    index = make_index(records)
    before = len(list(Path("/dev/fd").iterdir()))
    assert [index.read(i) for i in range(300)] == [bytes([i % 256]) for i in range(300)]
    assert len(list(Path("/dev/fd").iterdir())) - before == 256


def test_a_file_replaced_between_two_indexes_is_read_anew(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    assert make_index([(str(path), 0, 3, "a")]).read(0) == b"old"
    (tmp_path / "other").write_bytes(b"new")
    (tmp_path / "other").replace(path)
    assert make_index([(str(path), 0, 3, "a")]).read(0) == b"new"


def test_a_file_that_is_gone_is_a_bad_sample(letters, tmp_path):
    (tmp_path / "second").unlink()
    with pytest.raises(BadSampleError, match=r"^cannot read the file: No such file"):
        letters.read(1)
    letters.read_ahead(np.arange(3))  # says nothing: the reader will


def test_a_file_that_became_shorter_is_a_bad_sample(letters, tmp_path):
    (tmp_path / "second").write_bytes(b"xy")
    with pytest.raises(BadSampleError, match=r"^the file ends inside this image: it has changed"):
        letters.read(1)


def test_neighbors_are_read_ahead_in_one_go(letters, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        os, "posix_fadvise", lambda _, offset, size, advice: asked.append((offset, size, advice))
    )
    letters.read_ahead(np.array([2, 0]))
    assert asked == [(1, 5, os.POSIX_FADV_WILLNEED)]  # from "bc" to the end of "f"
    long = make_index([(str(tmp_path / "first"), 0, 300_000, "a")])
    asked.clear()
    long.read_ahead(np.array([0]))
    # The kernel takes no more than 128 KiB at once.
    assert [(offset, size) for offset, size, _ in asked] == [
        (0, 131_072),
        (131_072, 131_072),
        (262_144, 37_856),
    ]


def test_weights_and_faults_stay_with_their_images(letters):
    fault = Fault(shard="a.tar", key="b", reason="no picture")
    weighted = replace(letters, weights=np.array([1, 2, 3], np.float32), faults=(fault,))
    joined = SampleIndex.concatenate([letters, weighted.select(np.array([2, 1]))])
    assert joined.weights.tolist() == [1, 1, 1, 3, 2]
    assert joined.faults == (fault,)


def test_the_digest_is_of_what_is_seen_and_in_which_order(letters, tmp_path):
    same = replace(letters, paths=("elsewhere", str(tmp_path / "second")))
    assert same.digest == letters.digest
    others = [
        letters.select(np.array([1, 0, 2])),
        letters.select(np.arange(2)),
        replace(letters, weights=np.array([1, 1, 2], np.float32)),
        replace(letters, sizes=np.array([2, 3, 2])),
    ]
    assert len({index.digest for index in [letters, *others]}) == 5


def test_a_fault_names_file_and_key(letters, tmp_path):
    expected = Fault(shard=str(tmp_path / "second"), key="xyz", reason="no picture")
    assert letters.fault(1, "no picture") == expected


@pytest.mark.parametrize(
    ("n", "held_out"),
    # 2 % of 1,000 is 20 and of 260,000 is 5,200: at least 16, at most 5,000 and half.
    [(2, 1), (3, 1), (10, 5), (31, 15), (32, 16), (33, 16), (800, 16), (1000, 20), (260_000, 5000)],
)
def test_hold_out_counts(n, held_out):
    index = SampleIndex(
        paths=("x",),
        path_ids=np.zeros(n, dtype=np.int32),
        offsets=np.arange(n),
        sizes=np.ones(n, dtype=np.int64),
        keys=np.arange(n).astype("S8"),
        weights=np.ones(n, np.float32),
        ratios=np.full(n, np.nan, np.float32),
        stills=np.zeros(n, bool),
    )
    training, validation = hold_out(index)
    assert (len(training), len(validation)) == (n - held_out, held_out)
    together = np.concatenate([training.offsets, validation.offsets])
    assert np.array_equal(np.sort(together), index.offsets)
    assert (np.diff(training.offsets) > 0).all()
    assert (np.diff(validation.offsets) > 0).all()


def test_hold_out_takes_the_smallest_hashes():
    keys = [f"image-{i}" for i in range(100)]
    _, validation = hold_out(make_index([("x", i, 1, key) for i, key in enumerate(keys)]))
    by_hash = sorted(keys, key=lambda key: blake2b(key.encode(), digest_size=8).hexdigest())
    assert {validation.key(i) for i in range(16)} == set(by_hash[:16])


def test_hold_out_does_not_depend_on_the_order():
    # Each key is three times in each of two shards, so that the 16 end amid ties of both kinds.
    records = [(f"shard-{i % 2}", i, 1, f"{i // 6:03d}") for i in range(120)]
    shuffled = [records[i] for i in np.random.default_rng(0).permutation(120)]
    _, one = hold_out(make_index(records))
    _, other = hold_out(make_index(shuffled))
    assert sorted(records_of(one)) == sorted(records_of(other))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_images_to_hold_out_are_refused(n):
    with pytest.raises(DataError, match=r"data\.val"):
        hold_out(make_index([("x", 0, 1, "a")] * n))
