"""Commands on this machine: how many at a time, on which device, and how all are ended."""

from pathlib import Path

import pytest

from vqtrain.errors import ConfigError
from vqtrain.launchers.base import Ended, Job
from vqtrain.launchers.local import Local, gpus


def test_all_run_and_each_end_is_told(here, launched):
    commands = [["say", "one"], ["fail", "1"], ["die"], ["say", "two"]]
    ticks = []
    assert launched(Local(processes=2), *commands, tick=lambda: ticks.append(0)) == [
        Ended(code=0, reason=f"None {here} one"),
        Ended(code=1, reason="it broke"),
        Ended(code=137, reason="killed by SIGKILL"),
        Ended(code=0, reason=f"None {here} two"),
    ]
    assert ticks


def test_an_end_is_told_while_others_still_run(here):
    told = []
    Local(processes=2).launch(
        [Job(name="long", commands=[["span"]] * 2), Job(name="short", commands=[["say"]])],
        logs=here / "logs",
        tick=lambda: None,
        done=lambda job, _: told.append(job.name),
    )
    assert told == ["short", "long"]


@pytest.mark.parametrize("processes", [1, 3])
def test_as_many_run_at_a_time_as_are_asked_for(here, launched, processes):
    launched(Local(processes=processes), *[["span"]] * 3)
    spans = [tuple(map(float, (here / f"logs/{i}.log").read_text().split())) for i in range(3)]
    at_once = [sum(began <= moment <= end for began, end in spans) for moment, _ in spans]
    assert max(at_once) <= processes
    assert (max(at_once) == 1) == (processes == 1)


def test_each_place_has_a_device_of_its_own(here, launched, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert gpus() == ["4", "6"]
    ends = launched(Local(processes=2), *[["say"]] * 2)
    assert [end.reason for end in ends] == [f"4 {here}", f"6 {here}"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        (3, {"two": "0,1", "one": "2", "three": "0,1,2"}),
        (1, {"two": "0,1", "one": "2", "three": "0,1,2"}),  # as many as the largest job needs
        (6, {"two": "0,1", "one": "2", "three": "0,1,2"}),  # each GPU twice, no job twice on one
    ],
)
def test_a_job_has_as_many_devices_as_it_needs(here, monkeypatch, processes, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    found = {}
    Local(processes=processes).launch(
        [
            Job(name=name, commands=[["say"]], devices=devices)
            for name, devices in (("two", 2), ("one", 1), ("three", 3))
        ],
        logs=here / "logs",
        tick=lambda: None,
        done=lambda job, end: found.update({job.name: end.reason.split()[0]}),
    )
    assert found == expected


def test_an_interruption_ends_all(here, launched, is_running):
    def interrupt() -> None:
        if all((here / name).exists() and (here / name).read_text() for name in "ab"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launched(Local(processes=2), *(["obey", name] for name in "abc"), tick=interrupt)
    for name in "ab":
        assert not is_running(int((here / name).read_text()))
        assert Path(f"{name}.end").exists()
    assert not (here / "c").exists()


def test_no_place_is_refused():
    with pytest.raises(ConfigError, match="processes must be at least 1, got 0"):
        Local(processes=0)
