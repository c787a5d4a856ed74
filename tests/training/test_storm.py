"""Kills at random steps: every batch that follows is the one that would have followed."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Protocol

import pytest
import torch
from PIL import Image

SETTINGS = [
    "trainer.log_every=5",
    "trainer.validate_every=20",
    "trainer.checkpoint_every=4",
    "data.crop=random_resized",
    "data.flip=true",
    "optim.schedule=cosine",
]


class Run(Protocol):
    """A run of which every batch is noted; see ``noted_run``."""

    run: Callable[..., None]
    kill_at: Callable[..., None]
    notes: Callable[[int], list[dict[str, object]]]
    checkpoint: dict[str, object]
    folder: Path


MakeRun = Callable[[str, list[str]], Run]


def assert_equal_ends(one: Run, other: Run, *, ranks: int) -> None:
    """Compare all batches, and the networks at the end, bit for bit."""
    for rank in range(ranks):
        expected = {line["step"]: line for line in one.notes(rank)}
        assert len(expected) == len(one.notes(rank))
        assert {line["step"] for line in other.notes(rank)} == set(expected)
        assert all(line == expected[line["step"]] for line in other.notes(rank))
    a, b = one.checkpoint["training"], other.checkpoint["training"]
    for name, tensor in a["weights"].items():  # type: ignore[index,union-attr]  # plain data
        assert torch.equal(tensor, b["weights"][name]), name  # type: ignore[index]  # plain data
    metrics = [(noted.folder / "run/metrics.jsonl").read_bytes() for noted in (one, other)]
    assert metrics[0] == metrics[1]


def storm(start: MakeRun, words: list[str], *, kills: list[tuple[int, int]]) -> tuple[Run, Run]:
    """Run once unbroken, and once with kills at some steps and then some number of workers."""
    unbroken, broken = start("unbroken", words), start("broken", words)
    unbroken.run("data.num_workers=0")
    for step, workers in kills:
        broken.kill_at(step, "resume=auto", f"data.num_workers={workers}")
    broken.run("resume=auto", f"data.num_workers={kills[-1][1]}")
    return unbroken, broken


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("ranks", "kills", "more"),
    [
        (1, [(6, 0), (15, 2)], []),
        pytest.param(2, [(13, 2)], [], marks=pytest.mark.soak),
        pytest.param(2, [(6, 0), (13, 2)], ["data.aspect=buckets"], marks=pytest.mark.soak),
    ],
)
def test_a_kill_changes_no_batch(
    ranks: int,
    kills: list[tuple[int, int]],
    more: list[str],
    tiny: list[str],
    pictures: Path,
    tmp_path: Path,
    noted_run: MakeRun,
) -> None:
    folder = tmp_path / "some-wide"
    folder.mkdir()
    for number, path in enumerate(sorted(pictures.glob("*.png"))):
        Image.open(path).crop((0, 0, 24, 20 if number % 3 else 12)).save(folder / path.name)
    # 32 images are 8 batches of 4 an epoch: the kills are in the midst of one.
    words = [
        *tiny[1:],
        f"data.train={folder}",
        *SETTINGS,
        *more,
        f"trainer.devices={ranks}",
        "trainer.max_steps=20",
    ]
    assert_equal_ends(*storm(noted_run, words, kills=kills), ranks=ranks)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_storm_of_kills_changes_nothing(
    ranks: int, workers: int, tiny: list[str], noted_run: MakeRun
) -> None:
    random = Random(10 * ranks + workers)
    steps = sorted(random.sample(range(1, 120), 5))  # 20 over the four layouts
    words = [*tiny, *SETTINGS, f"trainer.devices={ranks}", "trainer.max_steps=120"]
    ends = storm(noted_run, words, kills=[(step, workers) for step in steps])
    assert_equal_ends(*ends, ranks=ranks)


@pytest.mark.ddp
def test_another_layout_goes_on_in_the_same_epoch(tiny: list[str], noted_run: MakeRun) -> None:
    noted = noted_run("run", tiny)
    noted.run("trainer.devices=1", "data.num_workers=2", "trainer.max_steps=6")  # 24 images
    layout = ["trainer.devices=2", "data.num_workers=0", "trainer.max_steps=12"]
    noted.run("resume=run", *layout)
    lines = [{**line, "rank": rank} for rank in range(2) for line in noted.notes(rank)]
    keys = [
        key
        for line in sorted(lines, key=lambda line: (line["step"], line["rank"]))
        for key in line["keys"]
    ]
    assert noted.checkpoint["training"]["samples"] == len(keys) == 72  # type: ignore[index]  # plain data
    size = len(set(keys))
    assert size == 32
    for start in (0, 32):
        assert sorted(keys[start : start + size]) == sorted(set(keys))
