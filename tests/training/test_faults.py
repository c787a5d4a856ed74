"""Damaged images and shards: skipped and listed; where they are too many, the run stops."""

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
from PIL import Image


class Run(Protocol):
    """A run of which every batch is noted; see ``noted_run``."""

    run: Callable[..., str]
    start: Callable[..., object]
    notes: Callable[[int], list[dict[str, object]]]
    folder: Path


MakeRun = Callable[[str, list[str]], Run]
SHARDS, PER_SHARD = 5, 100


def picture(number: int, kind: str) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((20, 16), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 px in a hundred bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def damaged(number: int) -> bytes:
    """Damage a picture in one of five ways."""
    whole = picture(number, "JPEG")
    ways = [b"", b"this is no picture", whole[: len(whole) // 2], bomb(), b"\xff" * 700]
    return ways[number % 5]


@pytest.fixture
def shards(tmp_path: Path) -> Callable[[set[int], bool], list[str]]:
    """Write 500 JPEGs into five shards, some damaged, the last shard perhaps cut off."""

    def write(bad: set[int], cut: bool) -> list[str]:
        folder = tmp_path / "shards"
        folder.mkdir()
        for shard in range(SHARDS):
            path = folder / f"{shard}.tar"
            with tarfile.open(path, "w") as tar:
                for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
                    content = damaged(number) if number in bad else picture(number, "JPEG")
                    member = tarfile.TarInfo(f"{number:03d}.jpg")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        if cut:
            with tarfile.open(path) as tar:
                place = tar.getmember("490.jpg").offset_data
            with path.open("r+b") as file:
                file.truncate(place + 100)
        good = folder / "val"
        good.mkdir()
        for number in range(3):
            (good / f"{number}.png").write_bytes(picture(1000 + number, "PNG"))
        (good / "bad.png").write_bytes(b"")
        return [f"data.train={folder}/{{0..4}}.tar", f"data.val={good}"]

    return write


def listed(run: Run) -> list[dict[str, object]]:
    lines = (run.folder / "run/bad_samples.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.ddp
@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (2, 0)])
def test_one_in_a_hundred_is_skipped(
    ranks: int,
    workers: int,
    tiny: list[str],
    shards: Callable[[set[int], bool], list[str]],
    noted_run: MakeRun,
) -> None:
    bad = {7, 103, 251, 329, 480}
    words = [*tiny, *shards(bad, True), "data.batch_size=10", f"trainer.devices={ranks}"]
    words += [f"data.num_workers={workers}", f"trainer.max_steps={50 // ranks}"]
    run = noted_run("run", [*words, "trainer.log_every=10", "trainer.validate_every=25"])
    out = run.run()
    assert "finished" in out
    assert "skipped" in out
    keys = {int(key) for rank in range(ranks) for line in run.notes(rank) for key in line["keys"]}
    assert keys == set(range(490)) - bad
    found = [(line["split"], line["key"], Path(str(line["shard"])).name) for line in listed(run)]
    expected = [("train", f"{number:03d}", f"{number // 100}.tar") for number in sorted(bad)]
    cut = ("train", "490", "4.tar")
    assert sorted(found) == sorted([*expected, cut, ("val", "bad", "bad.png")])
    before = [line["key"] for line in listed(run) if line["step"] == 0]
    assert before == ["490"]
    assert all(line["reason"] for line in listed(run))


@pytest.mark.slow
def test_three_in_a_hundred_are_too_many(
    tiny: list[str],
    shards: Callable[[set[int], bool], list[str]],
    vqtrain: Callable[..., object],
    tmp_path: Path,
) -> None:
    bad = set(range(0, 495, 33))  # 15 of 500
    words = [*tiny, *shards(bad, False), "data.batch_size=10", "trainer.max_steps=200"]
    run_dir = tmp_path / "run"
    done = vqtrain("train", *words, f"run_dir={run_dir}")
    assert done.returncode == 1
    # The allowed 5 and sqrt(5) are 7.2.
    (error,) = done.stderr.splitlines()
    assert error.startswith("vqtrain: 8 of 500 images cannot be read, more than data.max_bad_frac")
    assert f"resume={run_dir}" in error
    lines = (run_dir / "bad_samples.jsonl").read_text().splitlines()
    assert len([line for line in lines if '"train"' in line]) == 8
    last = (run_dir / "checkpoints").resolve() / "last.ckpt"
    assert last.exists()
    # With more allowed it goes on from there.
    more = ["data.max_bad_fraction=0.05", "trainer.max_steps=60"]
    done = vqtrain("train", f"resume={run_dir}", *more)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout


@pytest.mark.slow
def test_a_shard_that_vanishes_in_mid_run_stops_it(
    tiny: list[str],
    shards: Callable[[set[int], bool], list[str]],
    start_vqtrain: Callable[..., object],
    tmp_path: Path,
) -> None:
    words = [*tiny, *shards(set(), False), "trainer.max_steps=100000", "data.val=auto"]
    process = start_vqtrain("train", *words, f"run_dir={tmp_path / 'run'}")
    while not (tmp_path / "run/metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
    gone = tmp_path / "shards/2.tar"
    gone.write_bytes(b"")  # a file that is open is there until it is closed
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "images cannot be read, more than data.max_bad_fraction=0.01 allows" in err
    listing = (tmp_path / "run/bad_samples.jsonl").read_text()
    lines = [json.loads(line) for line in listing.splitlines()]
    assert {line["shard"] for line in lines} == {str(gone)}
