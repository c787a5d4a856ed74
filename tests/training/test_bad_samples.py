"""What cannot be read is listed once, counted, and stops a run where it is too much."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vqtrain.data.faults import Fault
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.data_module import TrainingData

CPU = torch.device("cpu")


def fault(number: int) -> Fault:
    return Fault(shard="a.tar", key=f"{number:03d}", reason="the file is empty")


@pytest.fixture
def make(make_data: Callable[..., TrainingData], tmp_path: Path) -> Callable[..., BadSamples]:
    """Make the list of a run on n images; what it says goes to ``said``."""

    def make(n: int = 48, said: list[str] | None = None, **changes: object) -> BadSamples:
        data = make_data(**changes)
        data.training = data.training.select(torch.arange(n).remainder(48).numpy())
        lines = [] if said is None else said
        return BadSamples(path=tmp_path / "bad_samples.jsonl", data=data, say=lines.append)

    return make


def lines_of(bad_samples: BadSamples) -> list[dict[str, object]]:
    return [json.loads(line) for line in bad_samples.path.read_text().splitlines()]


def test_each_is_listed_once(make: Callable[..., BadSamples]) -> None:
    said: list[str] = []
    bad_samples = make(said=said)
    bad_samples.begin()
    assert not bad_samples.path.exists()
    bad_samples.found = [("train", fault(1)), ("val", fault(2)), ("train", fault(1))]
    bad_samples.share(3, CPU)
    assert bad_samples.found == []
    bad_samples.found = [("train", fault(1))]
    bad_samples.share(4, CPU)
    expected = {"step": 3, "shard": "a.tar", "reason": "the file is empty"}
    assert lines_of(bad_samples) == [
        {**expected, "split": "train", "key": "001"},
        {**expected, "split": "val", "key": "002"},
    ]
    assert bad_samples.count == 1
    first = "skipped '001' in a.tar: the file is empty, and 1 more"
    assert said == [f"{first}; all are listed in {bad_samples.path}"]


def test_a_resumed_run_knows_what_was_found(make: Callable[..., BadSamples]) -> None:
    first = make()
    first.begin()
    first.found = [("train", fault(1)), ("val", fault(2))]
    first.share(3, CPU)
    resumed = make()
    resumed.begin()
    assert resumed.count == 1
    resumed.found = [("train", fault(1)), ("train", fault(3))]
    resumed.share(5, CPU)
    assert resumed.count == 2
    assert [line["key"] for line in lines_of(resumed)] == ["001", "002", "003"]


def test_what_a_scan_found_is_listed_and_not_counted(make: Callable[..., BadSamples]) -> None:
    said: list[str] = []
    bad_samples = make(said=said)
    data = bad_samples.data
    cut = Fault(shard="b.tar", key="", reason="no tar")
    data.training = replace(data.training, faults=(cut, fault(1)))
    data.validation = replace(data.validation, faults=(cut, fault(2)))
    bad_samples.begin()
    assert [(line["split"], line["key"], line["step"]) for line in lines_of(bad_samples)] == [
        ("train", "", 0),
        ("train", "001", 0),
        ("val", "002", 0),
    ]
    assert bad_samples.count == 0
    assert said == [f"skipped b.tar: no tar, and 2 more; all are listed in {bad_samples.path}"]


@pytest.mark.parametrize(
    ("n", "fraction", "allowed"),
    [
        (1000, 0.01, 13),  # 10 + sqrt(10) = 13.2
        (48, 0.01, 1),  # 0.5 + 0.7, and one is always allowed
        (10, 0.01, 1),
        (100, 0.1, 13),
        (1000, 0.0, 0),
    ],
)
def test_more_than_the_allowed_share_is_too_much(
    n: int, fraction: float, allowed: int, make: Callable[..., BadSamples]
) -> None:
    bad_samples = make(n, max_bad_fraction=fraction)
    bad_samples.begin()
    for number in range(allowed):
        bad_samples.found = [("train", fault(number)), ("val", fault(number + 500))]
        bad_samples.share(1, CPU)
        assert not bad_samples.too_many
    bad_samples.found = [("train", fault(allowed))]
    bad_samples.share(1, CPU)
    assert bad_samples.too_many


def test_a_name_that_is_no_text_is_listed(make: Callable[..., BadSamples]) -> None:
    bad_samples = make()
    bad_samples.begin()
    odd = Fault(shard="/a/caf\udce9.jpg", key="caf\udce9", reason="the file is empty")
    bad_samples.found = [("train", odd)]
    bad_samples.share(1, CPU)
    assert lines_of(bad_samples)[0]["key"] == "caf\udce9"
