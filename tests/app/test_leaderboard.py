"""``vqtrain leaderboard`` as its users meet it."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vqtrain import Tokenizer
from vqtrain.app.parts.keys import read_values
from vqtrain.app.parts.leaderboard import public
from vqtrain.app.parts.pages import page_of
from vqtrain.cli import main
from vqtrain.launchers.base import Ended, Job
from vqtrain.launchers.local import Local

NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1}
KL = {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1e-6}}
WORDS = ["num_workers=0", "device=cpu", "out=board"]
MORE = "metrics: [psnr], baselines: false, cost: false, pictures: 2"


def fsq(size: int) -> dict[str, object]:
    return {"kind": "fsq", "arguments": {"size": size, "levels": None, "eps": 1e-3}}


def save_tokenizer(folder: str, codebook: dict[str, object]) -> None:
    shape: dict[str, Any] = {"num_downsamplings": 2, "in_channels": 3}
    tokenizer = Tokenizer(
        encoder={"kind": "vqvae", "arguments": {**NETWORK, **shape}},
        codebook=codebook,
        decoder={
            "kind": "vqvae",
            "arguments": {**NETWORK, "num_upsamplings": 2, "out_channels": 3},
        },
        channels=3,
        training={"image_size": 16},
    )
    tokenizer.save_pretrained(folder)


@pytest.fixture
def listed(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write a list of what is in the folder; a tokenizer is written before."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures, "photos")
    for name, codebook in (("a", fsq(16)), ("b", fsq(64)), ("kl", KL)):
        torch.manual_seed(0)
        save_tokenizer(name, codebook)

    def write(*items: str, more: str = MORE, images: str = "photos/picture-0?.png") -> None:
        lines = [f"protocol: {{images: '{images}', image_size: 16, {more}}}", "tokenizers:"]
        Path("list.yaml").write_text("\n".join([*lines, *(f"- {item}" for item in items)]))

    return write


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Run commands in this process; what has run."""
    ran: list[list[str]] = []

    def launch(
        _: Local, jobs: list[Job], *, done: Callable[[Job, Ended], None], **_2: object
    ) -> None:
        for job in jobs:
            commands = [list(words) for words in job.commands]
            ran.extend(commands)
            codes = [convert(words) if words[0] == "convert" else main(words) for words in commands]
            done(job, Ended(code=codes[-1], reason="it did not work"))

    def convert(words: list[str]) -> int:
        given = read_values(page_of("convert"), words[1:])
        if not Path(given["path"]).is_file():
            return 2
        shutil.copytree("a", given["out"])
        return 0

    monkeypatch.setattr(Local, "launch", launch)
    return ran


def rows(folder: str = "board") -> dict[str, dict[str, Any]]:
    found = json.loads(Path(folder, "leaderboard.json").read_text())
    return {row["name"]: row for row in found["rows"]}


def test_rows_are_kept_by_content_and_a_failure_stops_no_other(
    listed: Callable[..., None], launched: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    listed("a", "nowhere", "{path: kl, name: KL, note: continuous}", "b")
    assert main(["leaderboard", "list.yaml", *WORDS]) == 1
    printed = capsys.readouterr().out
    assert "images      10 of photos/picture-0?.png" in printed
    assert "failed      nowhere: no tokenizer at nowhere" in printed
    assert "written     board/index.html" in printed
    found = rows()
    assert {name: row["state"] for name, row in found.items()} == {
        "a": "measured",
        "b": "measured",
        "KL": "measured",
        "nowhere": "failed",
    }
    assert len(launched) == 3
    # A copy elsewhere is the same content; what was measured is not measured again.
    shutil.move("a", "moved")
    listed("{path: moved, name: A}", "{path: kl, name: KL}", "b", "{path: b/../b, name: twin}")
    assert main(["leaderboard", "list.yaml", *WORDS]) == 0
    assert len(launched) == 3
    assert set(rows()) == {"A", "KL", "b", "twin"}
    assert rows()["A"]["metrics"] == found["a"]["metrics"]
    assert rows()["twin"]["key"] == rows()["b"]["key"]
    assert "A: was measured before" in capsys.readouterr().out
    # Other weights, other images and another protocol are measured.
    save_tokenizer("b", fsq(64))
    listed("b")
    assert main(["leaderboard", "list.yaml", *WORDS]) == 0
    assert len(launched) == 4
    listed("b", images="photos/picture-1?.png")
    assert main(["leaderboard", "list.yaml", *WORDS]) == 0
    listed("b", more=f"{MORE}, crop: native")
    assert main(["leaderboard", "list.yaml", *WORDS]) == 0
    assert len(launched) == 6
    # Neither does it matter how many processes load images.
    assert main(["leaderboard", "list.yaml", *WORDS, "num_workers=1"]) == 0
    assert len(launched) == 6


@pytest.mark.usefixtures("launched")
def test_the_command_of_a_row_gives_its_figures(listed: Callable[..., None]) -> None:
    listed("{path: a, name: the first one}")
    assert main(["leaderboard", *WORDS, "list.yaml"]) == 0
    row = rows()["the first one"]
    words = shlex.split(row["command"])
    assert words[:3] == ["vqtrain", "evaluate", "tokenizer=a"]
    assert main([*words[1:], "num_workers=0"]) == 0
    known = json.loads(Path("the-first-one-figures/evaluation.json").read_text())
    assert known["tokenizers"][0]["metrics"] == row["metrics"]


def test_a_tokenizer_that_cannot_be_measured_is_listed_with_the_last_line_of_its_log(
    listed: Callable[..., None], launched: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    listed("a", "b")
    broken = Tokenizer.from_pretrained("a")
    with torch.no_grad():
        broken.project_in.bias.fill_(torch.nan)
    broken.save_pretrained("a")
    assert main(["leaderboard", "list.yaml", *WORDS]) == 1
    assert (rows()["a"]["state"], rows()["a"]["reason"]) == ("failed", "it did not work")
    assert "\na: failed: it did not work\n" in capsys.readouterr().out
    assert [*Path("board/rows").iterdir()] == [Path("board/rows", rows()["b"]["key"])]
    # The next run tries it again, and nothing else.
    assert main(["leaderboard", "list.yaml", *WORDS]) == 1
    assert len(launched) == 3


def test_a_checkpoint_is_converted_once(
    listed: Callable[..., None], launched: list[list[str]]
) -> None:
    Path("some.pt").write_bytes(b"1")
    listed("{path: some.pt, kind: vqvae2, name: theirs}", "{path: none.pt, kind: vqvae2}")
    assert main(["leaderboard", "list.yaml", *WORDS]) == 1
    assert [words[0] for words in launched] == ["convert", "evaluate", "convert"]
    assert launched[0][:3] == ["convert", "kind=vqvae2", "path=some.pt"]
    found = rows()
    assert found["none.pt"]["reason"] == "it did not work"
    assert found["theirs"]["command"].startswith(
        "vqtrain convert kind=vqvae2 path=some.pt out=theirs && vqtrain evaluate tokenizer=theirs "
    )
    listed("{path: some.pt, kind: vqvae2, name: theirs}")
    assert main(["leaderboard", "list.yaml", *WORDS]) == 0
    assert len(launched) == 3
    Path("some.pt").write_bytes(b"22")  # another file, which holds the same tokenizer
    assert main(["leaderboard", "list.yaml", *WORDS]) == 0
    assert [words[0] for words in launched[3:]] == ["convert"]


@pytest.mark.slow
def test_a_killed_leaderboard_goes_on_and_measures_nothing_twice(
    listed: Callable[..., None], start_vqtrain: Callable[..., "subprocess.Popen[str]"]
) -> None:
    listed("a", "kl", "b")
    killed = start_vqtrain("leaderboard", "list.yaml", *WORDS)
    deadline = time.monotonic() + 120
    while len(begun := [*Path("board/logs").glob("*.log")]) < 2:  # the second one is under way
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert [row["state"] for row in rows().values()].count("measured") == 1
    first = min(begun, key=lambda file: file.stat().st_mtime_ns)
    times = {file: file.stat().st_mtime_ns for file in Path("board/rows", first.stem).rglob("*")}
    again = start_vqtrain("leaderboard", "list.yaml", *WORDS)
    printed, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert [row["state"] for row in rows().values()] == ["measured"] * 3
    assert printed.count(" was measured before") == 1
    written = [log.read_text().count("\nwritten ") for log in Path("board/logs").iterdir()]
    assert written == [1, 1, 1]
    assert times == {file: file.stat().st_mtime_ns for file in times}
    assert not [*Path("board").rglob("*.part")]


def test_nothing_of_this_machine_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    text = f"https://me:secret@host/a.tar?sign=1 {tmp_path}/own/x.png {tmp_path}/home/y s3://a/b?c"
    monkeypatch.chdir(tmp_path / ".")
    assert public(text) == "https://host/a.tar own/x.png home/y s3://a/b?c"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name the tokenizers: vqtrain leaderboard LIST.yaml"),
        (["none.yaml"], "cannot read none.yaml: No such file"),
        (["list.yaml", "other.yaml"], "cannot read 'other.yaml': write key=value"),
        (["list.yaml", "device=cuda:1"], "choose them by CUDA_VISIBLE_DEVICES"),
        (["list.yaml", "device=abacus"], "abacus"),
        (["list.yaml", "out="], "out must name a folder"),
        (["list.yaml", "out=a"], "out=a is not of vqtrain leaderboard: give another folder"),
        (["list.yaml", "out=photos/board"], "out=photos/board lies inside images=photos"),
        (["list.yaml", "batch_size=0"], "batch_size must be at least 1"),
        (["list.yaml", "metrics=[psnr]"], "unknown key 'metrics'"),
        (["crops.yaml"], "crop must be one of"),
        (["metrics.yaml"], "did you mean 'psnr'?"),
        (["precisions.yaml"], "precision must be one of"),
        (["nowhere.yaml"], "images: nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line(
    listed: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    for name, more in (("crops", "crop: middle"), ("metrics", "metrics: [psrn]")):
        listed("a", more=more)
        Path("list.yaml").rename(f"{name}.yaml")
    listed("a", more="precision: 8-true")
    Path("list.yaml").rename("precisions.yaml")
    listed("a", images="nowhere", more="metrics: [fid], weights: {inception: none}")
    Path("list.yaml").rename("nowhere.yaml")
    listed("a", images="photos")
    typed = [
        word for word in WORDS if word.partition("=")[0] not in {w.partition("=")[0] for w in words}
    ]
    assert main(["leaderboard", *words, *typed]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path("board").exists()
