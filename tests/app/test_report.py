"""``vqtrain report`` from the outside, and the page that a run leaves."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtrain.app.parts import training
from vqtrain.cli import main
from vqtrain.errors import ConfigError

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_a_run_leaves_its_page_and_what_it_was_started_with(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert main(["train", *tiny, f"run_dir={run_dir}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {run_dir / 'report.html'}"
    html = (run_dir / "report.html").read_text()
    assert "Finished, 4 steps" in html
    assert "16 of 16 validation images" in html
    assert "report" not in (run_dir / "log.txt").read_text()  # it ends as the training does
    facts = json.loads((run_dir / "environment.json").read_text())
    assert facts["commands"] == [shlex.join(["vqtrain", "train", *tiny, f"run_dir={run_dir}"])]
    assert facts["torch"] == torch.__version__
    assert f"run_dir={run_dir}</code>" in html


@pytest.mark.slow
def test_the_command_makes_the_page_anew(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    assert main(["train", *tiny, f"run_dir={run_dir}"]) == 0
    (run_dir / "report.html").unlink()
    capsys.readouterr()
    assert main(["report", f"path={run_dir}", "limit=4", "device=cpu"]) == 0
    assert capsys.readouterr().out == f"{run_dir / 'report.html'}\n"
    assert "4 of 16 validation images" in (run_dir / "report.html").read_text()
    other = tmp_path / "other=run [1]"  # a path is taken as typed
    shutil.copytree(run_dir, other)
    out = tmp_path / "page.html"
    assert main(["report", f"path={run_dir}", f"other={other}", f"out={out}"]) == 0
    assert "compared with" in out.read_text()
    assert main(["report", f"path={run_dir}", f"out={out}"]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_report_that_fails_is_a_warning_and_the_run_went_well(
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> Path:
        raise ConfigError("no\nroom")

    monkeypatch.setattr(training, "write_page", fail)
    assert main(["train", *tiny, f"run_dir={tmp_path / 'run'}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "warning: there is no report: no room"


@pytest.mark.slow
def test_a_run_that_is_out_of_time_leaves_its_page(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    words = [*tiny, f"run_dir={folder}", "trainer.max_steps=100000", "trainer.max_time=00:00:01"]
    assert main(["train", *words, "trainer.validate_every=100000"]) == 0
    *_, stopped, measure, _, said = capsys.readouterr().out.splitlines()
    assert stopped.startswith("out of time at step ")
    assert measure.endswith(f"measure it with: vqtrain evaluate tokenizer={folder}")
    assert said == f"report: {folder / 'report.html'}"
    assert "Not finished" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_run_that_a_signal_stops_leaves_no_page_and_says_so(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"

    def interrupt() -> None:
        while not (folder / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    try:
        words = [*tiny, f"run_dir={folder}", "trainer.max_steps=100000"]
        assert main(["train", *words]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"there is no report yet; write it with: vqtrain report path={folder}"
    assert not (folder / "report.html").exists()


@pytest.mark.slow
def test_a_report_that_takes_too_long_is_left(
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(training, "write_page", lambda *_, **__: time.sleep(60))
    monkeypatch.setattr(training, "REPORT_S", 0.1)
    assert main(["train", *tiny, f"run_dir={folder}"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("warning: there is no report, it takes longer")
    assert last.endswith(f"vqtrain report path={folder}")


@pytest.mark.slow
def test_a_run_that_fails_in_mid_run_leaves_its_page(
    tiny: list[str], tmp_path: Path, vqtrain: Run
) -> None:
    folder = tmp_path / "run"
    words = ["optim.lr=1e30", "trainer.clip=null", "trainer.max_steps=40", f"run_dir={folder}"]
    done = vqtrain("train", *tiny, *words)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == f"report: {folder / 'report.html'}"
    assert "20 steps in a row" in done.stderr.splitlines()[-1]
    assert "Not finished" in (folder / "report.html").read_text()


@pytest.mark.ddp
@pytest.mark.slow
def test_of_two_processes_the_first_one_makes_the_page(
    tiny: list[str], tmp_path: Path, vqtrain: Run
) -> None:
    folder = tmp_path / "run"
    done = vqtrain("train", *tiny, "trainer.devices=2", f"run_dir={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    assert json.loads((folder / "environment.json").read_text())["processes"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the path: vqtrain report path=PATH"),
        (["path=/nowhere/at/all"], "path=/nowhere/at/all does not exist"),
        (["path=.", "limit=0"], "limit must be at least 1, got 0"),
        (["path=.", "limit=few"], "limit must be"),
        (["path=.", "device=abacus"], "abacus"),
        (["path=.", "pth=x"], "did you mean 'path'?"),
        (["path=."], "path=. is not a run, a sweep, an evaluation or a probe"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert message in shown


def test_help_shows_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--help"]) == 0
    shown = capsys.readouterr().out
    for word in ("path", "out", "other", "limit", "device", "examples:"):
        assert word in shown
