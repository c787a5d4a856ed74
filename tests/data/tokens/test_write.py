"""Tokens on disk: what is in them, who wrote them, and what a kill costs."""

import errno
import gc
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset
from filelock import FileLock

from vqtrain.data.shards.folder import ShardFolder
from vqtrain.data.shards.writer import ShardWriter
from vqtrain.errors import ConfigError, DataError, FailedError, VqtrainError

# webdataset leaves its last shard open.
LEFT_OPEN = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def webdataset_reads(*shards: Path) -> list[dict[str, object]]:
    found = webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False)
    samples = list(found.decode())
    del found
    gc.collect()
    return samples


@LEFT_OPEN
def test_webdataset_reads_the_ids_with_what_lay_beside_the_pictures(
    index_of, plan_of, written, expected, tmp_path
):
    report = written(plan_of(index_of()), tmp_path / "out")
    samples = webdataset_reads(*sorted((tmp_path / "out").glob("*.tar")))
    assert [sample["__key__"] for sample in samples] == [f"{i:03d}" for i in range(10)]
    assert [sample["txt"] for sample in samples] == [f"caption {i}" for i in range(10)]
    for sample, row in zip(samples, expected(), strict=True):
        np.testing.assert_array_equal(sample["npy"], row)
        assert sample["npy"].dtype == np.uint16
    assert report["samples"] == 10
    assert [entry["samples"] for entry in report["files"]] == [4, 4, 2]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "index.json",
        *(f"shard-0000{i}.tar" for i in range(3)),
    }


def test_the_last_batch_is_padded_so_that_all_have_one_size(index_of, plan_of, written, tmp_path):
    sizes = []

    def encode(pixels):
        sizes.append(len(pixels))
        return pixels[:, 0, ::4, ::4].long()

    report = written(plan_of(index_of(), batch_size=3), tmp_path / "out", encode=encode)
    assert sizes == [3] * 5  # shards of 4, 4 and 2 pictures
    assert report["samples"] == 10


@pytest.mark.parametrize("num_workers", [0, 1])
def test_two_processes_write_what_one_writes(
    index_of, plan_of, written, content_of, tmp_path, num_workers
):
    plan = plan_of(index_of(3))
    written(plan, tmp_path / "one")
    assert written(plan, tmp_path / "two", share="1/2", num_workers=num_workers) is None
    assert not (tmp_path / "two/index.json").exists()
    assert written(plan, tmp_path / "two", share="0/2", num_workers=num_workers) is not None
    assert content_of(tmp_path / "two") == content_of(tmp_path / "one")


@pytest.mark.parametrize("layout", ["webdataset", "flat"])
@pytest.mark.parametrize("after", range(5))
def test_an_interruption_neither_repeats_nor_loses_a_batch(
    index_of, plan_of, written, stopping, content_of, tmp_path, after, layout
):
    plan = plan_of(index_of(3), layout=layout)
    written(plan, tmp_path / "unbroken")
    first, second = stopping(after), stopping(5)
    with pytest.raises(KeyboardInterrupt):
        written(plan, tmp_path / "out", encode=first)
    written(plan, tmp_path / "out", encode=second)
    assert (first.calls, second.calls) == (after, 5 - after)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "unbroken")


def cut_journal(state: Path) -> None:
    file = state / "shard-00000.jsonl"
    file.write_bytes(file.read_bytes()[:-9])


def cut_shard(state: Path) -> None:
    file = state / "shard-00000.part"
    file.write_bytes(file.read_bytes()[:-700])


def lengthen(state: Path) -> None:
    with (state / "shard-00000.part").open("ab") as file:
        file.write(b"half a batch")
    with (state / "shard-00000.jsonl").open("ab") as file:
        file.write(b'{"batches": 2, "sam')


def change(state: Path) -> None:
    file = state / "shard-00000.part"
    content = bytearray(file.read_bytes())
    content[600] ^= 1
    file.write_bytes(content)


def empty(state: Path) -> None:
    (state / "shard-00000.jsonl").write_bytes(bytes(300))


@pytest.mark.parametrize(
    ("damage", "again"), [(cut_journal, 1), (cut_shard, 1), (lengthen, 0), (change, 1), (empty, 1)]
)
def test_what_a_kill_leaves_half_written_is_cut_off(
    index_of, plan_of, written, stopping, content_of, tmp_path, damage, again
):
    plan, second = plan_of(index_of()), stopping(5)
    written(plan, tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        written(plan, tmp_path / "out", encode=stopping(1))
    damage(tmp_path / "out/.tokenize")
    written(plan, tmp_path / "out", encode=second)
    assert second.calls == 4 + again
    assert content_of(tmp_path / "out") == content_of(tmp_path / "unbroken")


def test_a_shard_that_is_whole_but_not_moved_is_moved(
    index_of, plan_of, written, stopping, content_of, tmp_path
):
    plan, second = plan_of(index_of()), stopping(5)
    written(plan, tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        written(plan, tmp_path / "out", encode=stopping(3))
    (tmp_path / "out/shard-00000.tar").rename(tmp_path / "out/.tokenize/shard-00000.part")
    written(plan, tmp_path / "out", encode=second)
    assert second.calls == 2
    assert content_of(tmp_path / "out") == content_of(tmp_path / "unbroken")


def test_a_whole_shard_that_is_lost_is_written_again(
    index_of, plan_of, written, stopping, content_of, tmp_path
):
    plan = plan_of(index_of())
    written(plan, tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        written(plan, tmp_path / "out", encode=stopping(3))
    (tmp_path / "out/shard-00000.tar").unlink()
    written(plan, tmp_path / "out")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "unbroken")


def test_other_processes_may_go_on(index_of, plan_of, written, stopping, content_of, tmp_path):
    plan, second, third = plan_of(index_of()), stopping(5), stopping(5)
    written(plan, tmp_path / "unbroken")
    with pytest.raises(KeyboardInterrupt):
        written(plan, tmp_path / "out", encode=stopping(1))
    assert written(plan, tmp_path / "out", share="0/2", encode=second) is None
    written(plan, tmp_path / "out", share="1/2", encode=third)
    assert (second.calls, third.calls) == (2, 2)
    assert content_of(tmp_path / "out") == content_of(tmp_path / "unbroken")


def test_what_is_complete_is_left_alone(index_of, plan_of, written, stopping, tmp_path):
    plan, again = plan_of(index_of()), stopping(0)
    report = written(plan, tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out/.tokenize").mkdir()  # as a kill before its removal leaves it
    assert written(plan, tmp_path / "out", encode=again) == report
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == times


def test_a_process_that_comes_late_writes_nothing(
    index_of, plan_of, written, stopping, content_of, tmp_path, monkeypatch
):
    plan = plan_of(index_of())
    report = written(plan, tmp_path / "out")
    before = content_of(tmp_path / "out")
    read_complete, calls = ShardFolder.read_complete, []

    def late(self):
        calls.append(0)
        return read_complete(self) if len(calls) > 1 else None  # it looked before

    monkeypatch.setattr(ShardFolder, "read_complete", late)
    assert written(plan, tmp_path / "out", encode=stopping(0)) == report
    assert content_of(tmp_path / "out") == before


@LEFT_OPEN
def test_a_bad_picture_is_left_out_and_listed(index_of, plan_of, written, expected, tmp_path):
    report = written(plan_of(index_of(5)), tmp_path / "out")
    samples = webdataset_reads(*sorted((tmp_path / "out").glob("*.tar")))
    assert [sample["txt"] for sample in samples] == [f"caption {i}" for i in range(10) if i != 5]
    for sample, row in zip(samples, expected(5), strict=True):
        np.testing.assert_array_equal(sample["npy"], row)
    (fault,) = report["skipped"]
    assert (fault["key"], fault["shard"]) == ("005", "pictures.tar")
    assert str(tmp_path) not in (tmp_path / "out/index.json").read_text()
    assert fault["reason"].startswith("no JPEG, PNG")
    assert report["samples"] == 9


def test_too_many_bad_pictures_end_it_and_more_may_be_allowed(
    index_of, plan_of, written, stopping, tmp_path
):
    plan, second = plan_of(index_of(0, 9)), stopping(5)
    with pytest.raises(FailedError, match="2 of 10 images cannot be used, more than") as raised:
        written(plan, tmp_path / "out", max_bad_fraction=0.1)
    assert raised.value.exit_code == 1
    assert "'009' in " in str(raised.value)
    assert not (tmp_path / "out/index.json").exists()
    # The shares of others count as well.
    with pytest.raises(FailedError, match="2 of 10 images"):
        written(plan, tmp_path / "out", share="1/2", max_bad_fraction=0.1)
    report = written(plan, tmp_path / "out", max_bad_fraction=0.2, encode=second)
    assert second.calls == 0
    assert [fault["key"] for fault in report["skipped"]] == ["000", "009"]


def test_without_tolerance_one_bad_picture_ends_it(index_of, plan_of, written, tmp_path):
    with pytest.raises(FailedError, match="1 of 10 images"):
        written(plan_of(index_of(0)), tmp_path / "out", max_bad_fraction=0.0)


def test_tokens_of_other_things_are_refused(index_of, plan_of, written, tmp_path, stopping):
    index = index_of()
    others = [
        (plan_of(index, sha256="b"), "of another tokenizer"),
        (plan_of(index, batch_size=3), "with batch_size=2, not 3: give batch_size=2"),
        (plan_of(index, shard_size=5), "with shard_size=4, not 5"),
        (plan_of(index, layout="flat"), "with layout=webdataset, not flat"),
        (plan_of(index.select(np.arange(9))), "of 10 images, now there are 9"),
        (plan_of(index.select(np.arange(10)[::-1])), "of other images, or of some that have"),
    ]
    with pytest.raises(KeyboardInterrupt):
        written(plan_of(index), tmp_path / "begun", encode=stopping(1))
    written(plan_of(index), tmp_path / "complete")
    for plan, message in others:
        for out in ("begun", "complete"):
            with pytest.raises(ConfigError, match=message):
                written(plan, tmp_path / out)


def test_a_folder_of_other_things_is_refused_and_left_as_it_is(
    index_of, plan_of, written, content_of, tmp_path
):
    for name in ("notes.txt", "shard-00000.tar", "tokens.npy", "index.json"):
        out = tmp_path / name.partition(".")[0]
        out.mkdir()
        (out / name).write_text("{}")
        with pytest.raises(ConfigError, match="holds"):
            written(plan_of(index_of()), out)
        assert content_of(out) == {name: b"{}"}


def test_a_shard_that_is_gone_from_what_is_complete_is_said(index_of, plan_of, written, tmp_path):
    plan = plan_of(index_of())
    written(plan, tmp_path / "out")
    (tmp_path / "out/shard-00001.tar").unlink()
    with pytest.raises(DataError, match=r"shard-00001\.tar is missing or has changed"):
        written(plan, tmp_path / "out")


@pytest.mark.parametrize(
    ("held", "share", "is_free"),
    [("0-of-2", "1/2", True), ("0-of-2", "0/2", False), ("0-of-2", "0/1", False)],
)
def test_two_processes_never_share_a_shard(
    index_of, plan_of, written, stopping, tmp_path, held, share, is_free
):
    plan = plan_of(index_of())
    with pytest.raises(KeyboardInterrupt):
        written(plan, tmp_path / "out", encode=stopping(1))
    with FileLock(tmp_path / f"out/.tokenize/share-{held}"):
        if is_free:
            assert written(plan, tmp_path / "out", share=share) is None
        else:
            with pytest.raises(ConfigError, match=r"being written by another .* of share=0/2"):
                written(plan, tmp_path / "out", share=share)


def test_a_full_disk_ends_it_with_a_sentence(
    index_of, plan_of, written, content_of, tmp_path, monkeypatch
):
    plan = plan_of(index_of())
    written(plan, tmp_path / "unbroken")
    add, calls = ShardWriter.add, []

    def full(self, *arguments, **named):
        calls.append(0)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "add", full)
        with pytest.raises(
            FailedError, match="No space left on device; what is written is"
        ) as raised:
            written(plan, tmp_path / "out")
    assert raised.value.exit_code == 1
    written(plan, tmp_path / "out")
    assert content_of(tmp_path / "out") == content_of(tmp_path / "unbroken")


def test_an_encoder_that_fails_is_a_failure_in_mid_run(index_of, plan_of, written, tmp_path):
    def fail(_pixels):
        raise VqtrainError("latents are not finite")

    with pytest.raises(VqtrainError, match="not finite") as raised:
        written(plan_of(index_of()), tmp_path / "out", encode=fail)
    assert raised.value.exit_code == 1


def test_a_path_that_cannot_be_written_is_refused(index_of, plan_of, written, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write out=.*file/out: Not a directory"):
        written(plan_of(index_of()), tmp_path / "file/out")


def test_a_key_that_climbs_out_of_the_folder_writes_nothing_outside(
    index_of, plan_of, written, tmp_path
):
    (tmp_path / "deep/er").mkdir(parents=True)
    before = sorted(path for path in tmp_path.rglob("*") if path.name != "pictures.tar")
    keys = [f"../../{number:03d}" for number in range(10)]
    plan = plan_of(replace(index_of(), keys=np.array(keys, dtype=np.bytes_)))
    written(plan, tmp_path / "deep/er/out")
    names = []
    for shard in sorted((tmp_path / "deep/er/out").glob("*.tar")):
        with tarfile.open(shard) as tar:
            names += tar.getnames()
    assert names == [f"{i:03d}.{field}" for i in range(10) for field in ("npy", "txt")]
    shutil.rmtree(tmp_path / "deep/er/out")
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "pictures.tar") == before
