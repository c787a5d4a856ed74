"""Commands on this machine: how many at a time, on which device, and how all are ended."""

from pathlib import Path

import pytest

from vqtrain.errors import ConfigError
from vqtrain.launchers.base import Ended
from vqtrain.launchers.local import Local, gpus


def test_all_run_and_their_ends_are_in_order(here):
    commands = [["say", "one"], ["fail", "1"], ["die"], ["say", "two"]]
    ticks = []
    ends = Local(processes=2).launch(commands, logs=here / "logs", tick=lambda: ticks.append(0))
    assert ends == [
        Ended(code=0, reason=f"None {here} one"),
        Ended(code=1, reason="it broke"),
        Ended(code=137, reason="it was ended by SIGKILL"),
        Ended(code=0, reason=f"None {here} two"),
    ]
    assert ticks


@pytest.mark.parametrize("processes", [1, 3])
def test_as_many_run_at_a_time_as_are_asked_for(here, processes):
    Local(processes=processes).launch([["span"]] * 3, logs=here / "logs", tick=lambda: None)
    spans = [tuple(map(float, (here / f"logs/{i}.log").read_text().split())) for i in range(3)]
    at_once = [sum(began <= moment <= end for began, end in spans) for moment, _ in spans]
    assert max(at_once) <= processes
    assert (max(at_once) == 1) == (processes == 1)


def test_each_place_has_a_device_of_its_own(here, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert gpus() == ["4", "6"]
    ends = Local(processes=2).launch([["say"]] * 2, logs=here / "logs", tick=lambda: None)
    assert [end.reason for end in ends] == [f"4 {here}", f"6 {here}"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []


def test_an_interruption_ends_all(here, is_running):
    def interrupt() -> None:
        if all((here / name).exists() and (here / name).read_text() for name in "ab"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Local(processes=2).launch(
            [["obey", "a"], ["obey", "b"], ["obey", "c"]], logs=here / "logs", tick=interrupt
        )
    for name in "ab":
        assert not is_running(int((here / name).read_text()))
        assert Path(f"{name}.end").exists()
    assert not (here / "c").exists()


def test_no_place_is_refused():
    with pytest.raises(ConfigError, match="processes must be at least 1, got 0"):
        Local(processes=0)
