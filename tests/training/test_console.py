"""What people see of a run, on a terminal and elsewhere."""

import io
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer
from rich.console import Console

from vqtrain.sweeps.job import STAMP
from vqtrain.training.console import RunConsole, describe
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.step_end import StepEnd
from vqtrain.training.trained import Timed

MakeConsole = Callable[..., RunConsole]


@pytest.fixture
def make_console(tmp_path: Path, make_data: Callable[..., TrainingData]) -> MakeConsole:
    """Make a console of a run of ten steps, and set how long it was busy and waiting."""

    def make(*, busy_s: float = 1.0, waited_s: float = 0.0, is_main: bool = True) -> RunConsole:
        data = make_data()
        data.batches = Timed(data.training_batches(data.training, data.settings, None))
        data.batches.waited_s = waited_s
        console = RunConsole(log=tmp_path / "log.txt", max_steps=10, data=data, is_main=is_main)
        console.busy_s, console.images = busy_s, 40
        return console

    return make


def on_terminal(console: RunConsole) -> io.StringIO:
    output = io.StringIO()
    console.terminal = Console(
        file=output, force_terminal=True, width=120, highlight=False, soft_wrap=True
    )
    return output


def test_a_line_goes_to_the_screen_and_with_its_time_to_the_log(
    make_console: MakeConsole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console = make_console()
    console.line("run directory: [bold]runs/x[/bold]")
    console.line("for the log", log_only=True)
    # What looks like markup is part of a path.
    assert capsys.readouterr().out == "run directory: [bold]runs/x[/bold]\n"
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(
        rf"{stamp} run directory: \[bold\]runs/x\[/bold\]\n{stamp} for the log\n",
        (tmp_path / "log.txt").read_text(),
    )


def test_a_name_that_is_no_text_is_shown(make_console: MakeConsole, tmp_path: Path) -> None:
    make_console().line("caf\udce9.jpg")
    assert (tmp_path / "log.txt").read_text().endswith(" caf\\udce9.jpg\n")


def test_other_ranks_say_nothing(
    make_console: MakeConsole,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = make_console(is_main=False)
    console.line("hello")
    console.table("finished", {"steps": "3"})
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "log.txt").exists()


def test_the_speed_is_over_the_time_of_batches_and_of_waiting(
    make_console: MakeConsole, capsys: pytest.CaptureFixture[str]
) -> None:
    console = make_console(busy_s=1.9, waited_s=0.1)
    console.show_training(3, {"train/generator/total": 0.25, "train/codebook/perplexity": 61.7})
    # 40 images in 1.9 + 0.1 s; 0.1 of 2 s are 5 %, which is not worth a hint.
    assert capsys.readouterr().out == (
        "step 3/10  total 0.2500  perplexity 62  20 images/s  waiting 5%\n"
    )
    assert (console.busy_s, console.images, console.data.take_waited_s()) == (0.0, 0, 0.0)


def test_the_time_that_is_left_is_that_of_the_pace_so_far(
    make_console: MakeConsole, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = make_console()
    monkeypatch.setattr("time.monotonic", lambda: 1_000.0)
    console.start(4)
    monkeypatch.setattr("time.monotonic", lambda: 7_400.0)
    for step in (6, 10):  # 3,200 s a step, and 4 steps after the sixth
        console.busy_s = 1.0
        console.show_training(step, {})
    first, last = capsys.readouterr().out.splitlines()
    assert first.endswith("  3:33:20 left")
    assert "left" not in last


def test_a_slow_run_shows_its_pace_once_before_its_first_metrics(
    make_console: MakeConsole, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = make_console()
    monkeypatch.setattr("time.monotonic", lambda: 1_000.0)
    console.start(0)
    for step, now in (
        (1, 1_012.0),
        (3, 1_036.0),
        (4, 1_048.0),
    ):  # 12 s a step, 7 steps after step 3
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        console.begin_batch()
        console.end_batch(step, images=4)
    assert capsys.readouterr().out == "step 3/10  12.0 s a step  0:01:24 left\n"


def test_much_waiting_is_hinted_once_but_not_of_the_start(
    make_console: MakeConsole, capsys: pytest.CaptureFixture[str]
) -> None:
    console = make_console(busy_s=1.5, waited_s=0.5)
    console.show_training(2, {})
    assert capsys.readouterr().out == "step 2/10  20 images/s  waiting 25%\n"
    console.busy_s, console.images = 1.5, 40
    assert console.data.batches is not None
    console.data.batches.waited_s = 0.5
    console.show_training(3, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 3/10  20 images/s  waiting 25%"
    assert lines[1].startswith("25% of the time went into waiting for data: raise data.num_workers")
    assert "now 0" in lines[1]
    console.busy_s = 1.0
    console.data.batches.waited_s = 1.0
    console.show_training(4, {})
    assert capsys.readouterr().out == "step 4/10  0 images/s  waiting 50%\n"


def test_the_log_goes_on_evenly_where_the_clock_is_set_back(
    make_console: MakeConsole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    console = make_console()
    console.line("a")
    monkeypatch.setattr("time.time", lambda: 1_600_000_000.0)
    monkeypatch.setattr("time.monotonic", lambda: 107.0)
    console.line("b")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    first, second = (time.mktime(time.strptime(line[:19], STAMP)) for line in lines)
    assert (first, second) == (1_700_000_000, 1_700_000_007)


def test_batches_are_timed_and_their_images_counted(
    make_console: MakeConsole, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = make_console(busy_s=2.0)
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    console.begin_batch()
    monkeypatch.setattr("time.monotonic", lambda: 100.5)
    console.end_batch(1, images=3)
    assert (console.busy_s, console.images) == (2.5, 43)


def test_metrics_are_said_in_short_words() -> None:
    values = {
        "train/generator/gradient_norm": 1.23456,
        "train/codebook/usage": 0.5,
        "train/codebook/distance": 0.1,
        "train/codebook/perplexity": 99.6,
        "train/skipped_steps": 0.0,
        "train/generator/learning_rate": 0.00012,
    }
    assert describe(values, "train/") == [
        "gradient norm 1.2346",
        "usage 0.5000",
        "perplexity 100",
        "learning rate 1.2e-04",
    ]
    assert describe({"train/skipped_steps": 2.0}, "train/") == ["skipped steps 2.0000"]
    assert describe({"val/psnr": 26.1, "val/codebook/usage": 1.0}, "val/") == [
        "psnr 26.1000",
        "usage 1.0000",
    ]


def test_a_table_is_lines_in_the_log(
    make_console: MakeConsole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_console().table("finished", {"steps": "900", "tokenizer": "runs/x/tokenizer"})
    shown = capsys.readouterr().out
    assert shown.startswith("finished")
    assert "runs/x/tokenizer" in shown
    logged = [line[20:] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert logged == ["steps: 900", "tokenizer: runs/x/tokenizer"]


class Failing(Callback):
    """Fails in the second step."""

    def on_train_batch_end(self, *_: object, **__: object) -> None:
        """Count down."""
        self.batches = getattr(self, "batches", 0) + 1
        if self.batches == 2:
            raise RuntimeError("on purpose")


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_a_bar_moves_with_the_steps_and_gives_the_terminal_back(
    fails: bool,
    make_console: MakeConsole,
    make_module: Callable[..., TokenizerTraining],
    make_step_end: Callable[..., StepEnd],
    make_trainer: Callable[..., Trainer],
) -> None:
    console = make_console()
    output = on_terminal(console)
    module, step_end = make_module(max_steps=3), make_step_end(console)
    if fails:
        with pytest.raises(RuntimeError, match="on purpose"):
            make_trainer([step_end, Failing()]).fit(module, datamodule=console.data)
    else:
        make_trainer([step_end]).fit(module, datamodule=console.data)
    assert console.bar is None
    text = output.getvalue()
    assert ("step 3/10" in text) is not fails
    # A terminal without its cursor is what a bar that was not stopped leaves behind.
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_with_a_bar_training_lines_go_to_the_log_alone(
    make_console: MakeConsole,
    tmp_path: Path,
) -> None:
    console = make_console(busy_s=2.0)
    output = on_terminal(console)
    console.start(0)
    assert console.bar is not None
    console.show_training(3, {"train/generator/total": 0.25})
    assert console.bar.tasks[0].description == "total 0.2500  20 images/s  waiting 0%"
    console.show_validation(3, {"val/psnr": 20.0})
    console.close()
    logged = [line[20:] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert logged == [
        "step 3/10  total 0.2500  20 images/s  waiting 0%  0:00:00 left",
        "step 3/10  validation: psnr 20.0000",
    ]
    assert "step 3/10  total" not in output.getvalue()
    assert "step 3/10  validation: psnr 20.0000" in output.getvalue()
