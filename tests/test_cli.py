"""The command line before a command runs: help, mistakes, and what is imported."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vqtrain import cli
from vqtrain.build import kinds
from vqtrain.cli import main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in kinds("command"):
        assert f"  {command} " in shown


def test_a_misspelt_command_is_one_line_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "vqtrain: unknown command 'trian', did you mean 'train'?\n"


def test_no_command_shows_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out


def test_help_imports_neither_torch_nor_hydra_and_is_quick() -> None:
    script = (
        "import sys, vqtrain.cli as c; c.main(['--help']);"
        "print([m for m in ('torch', 'hydra', 'lightning', 'numpy') if m in sys.modules])"
    )
    began = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert shown.splitlines()[-1] == "[]"
    assert time.monotonic() - began < 0.5


def test_a_wrong_word_and_the_help_of_all_commands_wait_for_neither_torch_nor_lightning() -> None:
    script = """
import sys, vqtrain.cli as c
from vqtrain.build import kinds
wrong = [[word, "--print-confg"] for word in kinds("command")]
closed = set(kinds("command")) - {"train", "sweep", "doctor", "discretize"}
wrong += [[word, "--print-config"] for word in closed] + [[word, "foo=1"] for word in closed]
wrong += [["train", "codebook=vqq"], ["train", "codebok.size=3"], ["doctor", "imagse=demo"]]
wrong += [["sweep", "codebok.size=1,2"], ["sweep", "codebook=ema,vqq"], ["sweep", "sweepdir=a"]]
wrong += [["discretize", "tokenizer=a", "decoder_step=3"], ["discretize", "codebook=fsq"]]
wrong += [["export", "format=onyx"], ["convert", "kind=vqvae2", "path=a", "ema=true"]]
print({c.main(words) for words in wrong}, {c.main([word, "--help"]) for word in kinds("command")})
print([m for m in ("torch", "lightning", "numpy") if m in sys.modules])
"""
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines()[-2:] == ["{2} {0}", "[]"]


def test_a_trained_tokenizer_costs_little_more_than_torch() -> None:
    script = """
import sys, time
import torch
began = time.perf_counter()
from vqtrain import Tokenizer
took = time.perf_counter() - began
heavy = [m for m in ("lightning", "hydra", "wandb", "lpips", "webdataset") if m in sys.modules]
print(took, heavy)
"""
    lines = [
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout.split(maxsplit=1)
        for _ in range(3)
    ]
    assert {heavy.strip() for _, heavy in lines} == {"[]"}
    assert min(float(took) for took, _ in lines) < 0.3


@pytest.mark.parametrize("path", ["", "~nosuch/x", 300 * "a"])
@pytest.mark.parametrize(
    "words",
    [
        "train resume={}",
        "train init_from={}",
        "sweep sweep_dir={} seed=0,1",
        "pack images={}",
        "pack images=demo out={}",
        "evaluate images=demo out=a tokenizer={}",
        "tokenize images=demo out=a tokenizer={}",
        "reconstruct images=demo out=a tokenizer={}",
        "probe images=demo out=a tokenizer={}",
        "probe tokenizer=a images={}",
        "sample probe={}",
        "export out=a tokenizer={}",
        "convert kind=taming out=a path={}",
        "report path={}",
        "doctor images={}",
    ],
)
def test_a_path_that_cannot_be_is_one_line(
    words: str,
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.format(path).split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("vqtrain: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 1), (errno.EACCES, 1), (errno.ENAMETOOLONG, 2)]
)
def test_what_the_system_refuses_is_one_line(
    number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: object) -> int:
        raise OSError(number, os.strerror(number), "a/file")

    monkeypatch.setattr(cli, "run", refuse)
    assert main(["train"]) == code
    assert capsys.readouterr().err == f"vqtrain: {os.strerror(number)}: a/file\n"


@pytest.mark.slow
def test_the_module_is_the_same_command() -> None:
    command = [sys.executable, "-m", "vqtrain", "train", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "codebook " in shown.stdout
    assert "simvq, vq" in shown.stdout
    assert "trainer.max_steps" in shown.stdout
    assert shown.stdout.count("vqtrain train ") >= 3  # the usage and two examples
