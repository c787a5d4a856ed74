"""Processes that run one command together: how they meet, and how they fail."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from vqtrain import distributed
from vqtrain.errors import ConfigError, VqtrainError
from vqtrain.launchers.parts import ranks
from vqtrain.launchers.parts.ranks import is_first, is_rank, joined, launch

CPU = torch.device("cpu")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """Run Python in place of a vqtrain command, and return its processes."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        command: Sequence[str], *, log: Path, environment: dict[str, str], folder: Path
    ) -> "subprocess.Popen[bytes]":
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", *command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        started.append(process)
        return process

    monkeypatch.setattr(ranks, "start", start)
    return started


def test_what_the_first_process_prints_is_printed(
    scripts: list["subprocess.Popen[bytes]"], capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import os; print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK'])"
    )
    launch([code], 3)
    assert capsys.readouterr().out == "0 3 0\n"
    assert [process.returncode for process in scripts] == [0, 0, 0]


FIRST_WAITS = """
import os, sys, time
if os.environ['RANK'] == '0':
    time.sleep(60)
"""


def test_one_that_is_killed_ends_the_others(scripts: list["subprocess.Popen[bytes]"]) -> None:
    began = time.monotonic()
    with pytest.raises(VqtrainError, match="process 1 of 2 ended with code 137: killed by SIGK"):
        launch([f"{FIRST_WAITS}\nos.kill(os.getpid(), 9)"], 2)
    assert time.monotonic() - began < 20
    assert all(process.returncode for process in scripts)


@pytest.mark.ddp
def test_one_that_waits_for_the_others_is_ended_at_once(
    scripts: list["subprocess.Popen[bytes]"], tmp_path: Path
) -> None:
    file = tmp_path / "waits"
    code = f"""
import os, sys, time
from pathlib import Path
import torch
from vqtrain.app.parts.output import ending_in_order
from vqtrain.launchers.parts.ranks import joined
file = Path({str(file)!r})
if os.environ['RANK'] == '1':
    while not file.exists():
        time.sleep(0.01)
    time.sleep(0.5)
    print('vqtrain: out exists already')
    sys.exit(2)
with ending_in_order():
    file.touch()
    with joined(torch.device('cpu')):
        pass
"""
    with pytest.raises(ConfigError, match="out exists already"):
        launch([code], 2)
    assert [process.returncode for process in scripts] == [-signal.SIGTERM, 2]


@pytest.mark.usefixtures("scripts")
def test_wrong_input_is_one_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"^there is no such thing$"):
        launch(["import sys; print('vqtrain: there is no such thing'); sys.exit(2)"], 2)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("scripts")
def test_the_process_that_failed_is_named_and_not_those_that_lost_it() -> None:
    code = f"""
import os, sys, time
if os.environ['RANK'] == '0':
    print('vqtrain: {ranks.LOST}')
else:
    time.sleep(1)
    print('vqtrain: the disk is full')
sys.exit(1)
"""
    with pytest.raises(
        VqtrainError, match="process 1 of 2 ended with code 1: the disk is full"
    ) as found:
        launch([code], 2)
    assert found.value.exit_code == 1


def test_without_others_there_is_nothing_to_join() -> None:
    assert (is_rank(), is_first()) == (False, True)
    with joined(CPU):
        assert not distributed.is_running()


@pytest.fixture
def alone_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the environment of a torchrun with one process."""
    settings = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("alone_of_one")
def test_a_process_joins_those_that_torchrun_has_started_and_leaves_them() -> None:
    assert (is_rank(), is_first()) == (True, True)
    with joined(CPU):
        assert distributed.is_running()
    assert not distributed.is_running()


@pytest.mark.usefixtures("alone_of_one")
def test_a_process_that_is_lost_is_one_line_and_other_errors_stay() -> None:
    with pytest.raises(VqtrainError, match=ranks.LOST) as found, joined(CPU):
        raise RuntimeError("[gloo/transport] Connection closed by peer")
    assert found.value.exit_code == 1
    with pytest.raises(RuntimeError, match="a fault of ours"), joined(CPU):
        raise RuntimeError("a fault of ours")
    assert not distributed.is_running()


def test_an_environment_that_leads_nowhere_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(VqtrainError, match=r"cannot reach each other.*MASTER_ADDR"), joined(CPU):
        pass
