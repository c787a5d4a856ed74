"""What is shown of a sweep while it runs."""

import io
import json
import os
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from vqtrain.sweeps import screen
from vqtrain.sweeps.screen import Follower, SweepScreen


def line(step: int, **values: object) -> str:
    return json.dumps({"step": step, **values}) + "\n"


def test_a_file_is_read_as_it_grows(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    follower.look()  # not there yet
    assert (follower.step, follower.values) == (0, {})
    file = tmp_path / "metrics.jsonl"
    file.write_text("")
    follower.look()
    assert follower.step == 0
    file.write_text(line(1, loss=0.5))
    follower.look()
    assert follower.values == {"step": 1, "loss": 0.5}
    with file.open("a") as more:
        more.write(line(2, loss=0.25) + line(3, psnr=20.0))
    follower.look()
    # The newest of each.
    assert follower.values == {"step": 3, "loss": 0.25, "psnr": 20.0}


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(line(1, old=1.0))
    follower = Follower(tmp_path)
    follower.look()
    follower.values.clear()
    with file.open("a") as more:
        more.write(line(2))
    follower.look()
    assert follower.values == {"step": 2}


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    whole = line(1) + line(2, psnr=20.0)
    follower = Follower(tmp_path)
    for end in (3, len(line(1)) - 1):
        file.write_text(whole[:end])
        follower.look()
        assert follower.step == 0
    for end in (len(line(1)), len(line(1)) + 8, len(whole) - 1):
        file.write_text(whole[:end])
        follower.look()
        assert follower.step == 1
    file.write_text(whole)
    follower.look()
    assert follower.values == {"step": 2, "psnr": 20.0}


def test_half_a_letter_waits_too(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    content = '{"step": 1, "\xe9": 2}\n'.encode()
    follower = Follower(tmp_path)
    file.write_bytes(content[:14])
    follower.look()
    file.write_bytes(content)
    follower.look()
    assert follower.values == {"step": 1, "\xe9": 2}


def test_a_file_that_is_cut_back_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(line(step) for step in range(1, 9)))
    follower = Follower(tmp_path)
    follower.look()
    assert follower.step == 8
    file.write_text(line(1) + line(2))
    follower.look()
    assert follower.step == 2
    with file.open("a") as more:
        more.write(line(3))
    follower.look()
    assert follower.step == 3


def test_a_file_that_is_cut_back_and_grows_between_two_looks_is_no_trouble(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(line(step) for step in range(1, 9)))
    follower = Follower(tmp_path)
    follower.look()
    file.write_text(line(1) + line(2, note="long" * 50) + line(3))
    follower.look()
    follower.look()
    assert follower.step == 3


def test_a_number_that_is_none_is_shown_as_nothing(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(line(1, psnr=20.0) + line(2, psnr=None))
    follower = Follower(tmp_path)
    follower.look()
    assert follower.values == {"step": 2, "psnr": None}


@pytest.fixture
def clock(monkeypatch):
    """A clock of the screen that stands still until it is told to move; it begins at 1,000 s."""

    class Clock:
        now = 1_000.0

        def time(self) -> float:
            return self.now

        monotonic = time

    found = Clock()
    monkeypatch.setattr(screen, "time", found)
    return found


@pytest.fixture
def show(make_job, clock, tmp_path: Path):
    """Make the screen of a sweep over runs a to d, of which ``waiting`` are to run."""
    del clock  # it stands still from here on

    def make(waiting: str = "abcd", *, is_terminal: bool = False, best: str = "psnr"):
        file = io.StringIO()
        console = Console(force_terminal=is_terminal, file=file, width=120, highlight=False)
        shown = SweepScreen(
            jobs=[make_job(name, max_steps=100) for name in "abcd"],
            waiting=list(waiting),
            logs=tmp_path / "logs",
            console=console,
            best=best,
        )
        return shown, file

    return make


def begin(folder: Path, name: str, content: str = "", at: float = 1_000.0) -> None:
    """Let a run write something, some seconds after the start of the sweep."""
    log = folder / f"logs/{name}.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("")
    os.utime(log, (at, at))
    run_dir = folder / "jobs" / name
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "metrics.jsonl").write_text(content)


def test_without_a_terminal_there_is_a_line_a_minute(show, clock, tmp_path: Path) -> None:
    shown, file = show()
    begin(tmp_path, "a")
    with shown.shown():
        for _ in range(60):
            clock.now += 1.01
            shown.tick()
            begin(tmp_path, "a", line(50))
        assert file.getvalue() == "0 of 4 done, 1 running, 3 waiting, about 0:07:04 left\n"
        # 60.6 s were 50 steps of 400: 350 are left, at 1.212 s each.
        for _ in range(60):
            clock.now += 1.01
            shown.tick()
        assert file.getvalue().count("\n") == 2


def test_an_estimate_is_by_the_steps_of_this_call(show, clock, tmp_path: Path) -> None:
    begin(tmp_path, "a", line(40), at=999.0)  # goes on from step 40
    shown, file = show("abc")  # d is done
    begin(tmp_path, "a", line(40))
    clock.now += 2
    shown.tick()
    begin(tmp_path, "b", line(10))
    begin(tmp_path, "a", line(40) + line(60))
    clock.now += 48
    shown.tick()
    assert file.getvalue() == ""
    begin(tmp_path, "b", line(10) + line(50))
    clock.now += 12
    shown.tick()
    # In 62 s a made 20 steps and b 50; a has 40 left, b 50, and c 100: 190 x 62 / 70 = 168.3 s.
    assert file.getvalue() == "1 of 4 done, 2 running, 1 waiting, about 0:02:48 left\n"


def test_without_a_step_there_is_no_estimate(show, clock, tmp_path: Path) -> None:
    begin(tmp_path, "a", line(40), at=999.0)
    shown, file = show("ab")
    begin(tmp_path, "a", line(40))
    clock.now += 61
    shown.tick()
    begin(tmp_path, "a", line(40))
    clock.now += 61
    shown.tick()
    begin(tmp_path, "a", line(20))  # was cut back
    clock.now += 61
    shown.tick()
    assert file.getvalue().splitlines() == [
        "2 of 4 done, 1 running, 1 waiting",
        "2 of 4 done, 1 running, 1 waiting",
        "2 of 4 done, 1 running, 1 waiting",
    ]


def test_an_end_is_a_line_with_figures_or_a_reason(show, clock, tmp_path: Path) -> None:
    shown, file = show("abc")
    begin(tmp_path, "a", line(10))
    clock.now += 10
    shown.tick()
    assert shown.running == ["a"]
    begin(tmp_path, "a", line(10) + line(100))
    shown.ended("a", "finished", {"psnr": 20.12346, "ssim": 0.5}, "")
    assert shown.running == []
    shown.ended("b", "failed", {}, "out of [bold]memory[/bold]")  # before anyone saw it
    assert file.getvalue().splitlines() == [
        "2/4 a finished: psnr 20.1235, ssim 0.5000",
        "3/4 b failed: out of [bold]memory[/bold]",
    ]
    clock.now += 80
    shown.tick()
    # 100 steps of a in 90 s; c has 100.
    assert file.getvalue().splitlines()[2:] == [
        "3 of 4 done, 1 without results, 1 waiting, about 0:01:30 left"
    ]


def test_a_log_of_an_earlier_call_is_no_sign_that_a_run_has_begun(
    show, clock, tmp_path: Path
) -> None:
    begin(tmp_path, "a", line(5), at=999.0)
    shown, _ = show()
    begin(tmp_path, "b", line(5), at=900.0)  # the clock was set back
    clock.now += 2
    shown.tick()
    assert shown.running == ["b"]


def test_files_are_not_looked_at_all_the_time(show, clock, tmp_path: Path) -> None:
    shown, _ = show()
    clock.now += 2
    shown.tick()
    begin(tmp_path, "a")
    clock.now += 0.9
    shown.tick()
    assert shown.running == []
    clock.now += 0.1
    shown.tick()
    assert shown.running == ["a"]


def test_hours_are_written_as_hours(show, clock, tmp_path: Path) -> None:
    shown, file = show("ab")
    begin(tmp_path, "a")
    clock.now += 2
    shown.tick()
    begin(tmp_path, "a", line(1))
    clock.now += 98
    shown.tick()
    # 100 s a step, and 199 of them.
    assert file.getvalue().endswith("about 5:31:40 left\n")


def test_a_terminal_shows_a_table_that_goes_away(show, clock, tmp_path: Path) -> None:
    shown, file = show("abc", is_terminal=True, best="psnr")
    values = {"val/psnr": 20.0, "train/codebook/usage": None}
    begin(tmp_path, "a", line(25, **values))
    begin(tmp_path, "b", line(100, **{"train/codebook/usage": 0.5}))
    with shown.shown():
        clock.now += 10
        shown.tick()
        deadline = time.monotonic() + 10
        while "25/100" not in file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)  # it is drawn twice a second
        drawn = file.getvalue()
        shown.ended("b", "finished", {"psnr": 21.0}, "")
        clock.now += 100
        shown.tick()
    rows = [text.split() for text in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn).splitlines()]
    assert ["run", "step", "val/psnr", "usage"] in rows
    assert ["a", "#####...............", "25/100", "20.0000"] in rows
    assert ["b", "####################", "100/100", "0.5000"] in rows
    assert "1 of 4 done, 2 running, 1 waiting" in drawn
    after = file.getvalue()[len(drawn) :]
    assert "2/4 b finished: psnr 21.0000" in after
    # No line a minute where there is a table: 110 s have passed.
    assert "2 of 4 done, 1 running, 1 waiting" in after
    assert after.endswith("\x1b[2K")  # the last thing is to erase it


def test_a_terminal_is_not_filled_by_hundreds_of_runs(make_job, clock, tmp_path: Path) -> None:
    jobs = [make_job(f"job{number}") for number in range(23)]
    file = io.StringIO()
    shown = SweepScreen(
        jobs=jobs,
        waiting=[job.name for job in jobs],
        logs=tmp_path / "logs",
        console=Console(force_terminal=True, file=file, width=120, height=50, highlight=False),
        best="psnr",
    )
    for job in jobs:
        begin(tmp_path, job.name)
    with shown.shown():
        clock.now += 10
        shown.tick()
    assert "job19 " in file.getvalue()
    assert "job20 " not in file.getvalue()
    assert "and 3 more" in file.getvalue()
