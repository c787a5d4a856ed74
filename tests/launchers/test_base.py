"""How launchers are found, how a command is started and ended, and what is said of its end."""

import subprocess
import time
from pathlib import Path

import pytest

from vqtrain.build import kinds, resolve
from vqtrain.errors import ConfigError
from vqtrain.launchers import base
from vqtrain.launchers.base import (
    Ended,
    Job,
    check_package,
    ended,
    run,
    start,
    stop,
)
from vqtrain.launchers.local import Local


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_word_finds_the_file():
    assert kinds("launcher") == ["local", "ray", "slurm"]
    assert resolve("launcher", "local") is Local
    with pytest.raises(ConfigError, match="unknown kind 'slum', did you mean 'slurm'"):
        resolve("launcher", "slum")
    with pytest.raises(ConfigError, match="unknown kind 'base'"):
        resolve("launcher", "base")


def test_a_library_that_is_not_here_is_named_with_how_to_get_it():
    check_package("torch")
    with pytest.raises(ConfigError, match=r'needs nowhere: pip install "vqtrain\[cluster\]"'):
        check_package("nowhere")


def run_all(here, *commands):
    job = Job(name="0", commands=commands, environment={"CUDA_VISIBLE_DEVICES": "job"})
    return run(job, str(here / "logs/0.log"), str(here), {})


def test_a_job_runs_to_its_end(here):
    assert run_all(here, ["say", "a b"]) == Ended(code=0, reason=f"job {here} a b")
    assert run_all(here, ["fail", "2"]) == Ended(code=2, reason="it broke")
    assert run_all(here, ["die"]) == Ended(code=137, reason="killed by SIGKILL")


def test_commands_of_a_job_run_one_after_the_other_until_one_fails(here):
    assert run_all(here, ["say", "one"], ["say", "two"]).reason.endswith("two")
    assert run_all(here, ["say", "three"], ["fail", "1"], ["say", "four"]).code == 1
    words = [line.split()[-1] for line in (here / "logs/0.log").read_text().splitlines()]
    assert words == ["one", "two", "three", "broke"]


def test_a_machine_adds_to_the_environment_of_a_job(here):
    job = Job(name="0", commands=[["say"]], environment={"CUDA_VISIBLE_DEVICES": "job"})
    found = run(job, str(here / "0.log"), str(here), {"CUDA_VISIBLE_DEVICES": "machine"})
    assert found.reason == f"machine {here}"


@pytest.mark.parametrize(("content", "reason"), [("one\n  two \n\n", "two"), ("", "no output")])
def test_the_reason_is_the_last_line_that_a_command_wrote(tmp_path, content, reason):
    (tmp_path / "log").write_text(content)
    assert ended(1, tmp_path / "log") == Ended(code=1, reason=reason)
    assert ended(1, tmp_path / "none").reason == "no output"


def test_commands_are_ended_in_order_and_the_stubborn_by_force(here, is_running, monkeypatch):
    monkeypatch.setattr(base, "GRACE_S", 1.0)
    processes = [
        start([word, word], log=here / word, environment={}, folder=here)
        for word in ("obey", "ignore")
    ]
    for word in ("obey", "ignore"):
        wait_for(here / word)
    stop(processes)
    assert [process.returncode for process in processes] == [143, -9]
    assert (here / "obey.end").exists()
    assert not any(is_running(process.pid) for process in processes)


@pytest.mark.parametrize("word", ["obey", "sleep"])
def test_a_command_ends_when_whoever_started_it_is_killed(here, is_running, word):
    script = (
        "import time; from pathlib import Path; from vqtrain.launchers.base import start; "
        f"folder = Path({str(here)!r}); "
        f"start([{word!r}, 'pid'], log=folder / 'log', environment={{}}, folder=folder); "
        "time.sleep(60)"
    )
    parent = subprocess.Popen([base.sys.executable, "-c", script])
    wait_for(here / "pid")
    pid = int((here / "pid").read_text())
    assert is_running(pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (here / "pid.end").exists() == (word == "obey")
