"""Where a run keeps its files, and which run a call goes on with."""

import json
import platform
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from vqtrain.errors import CheckpointError
from vqtrain.training import run_directory
from vqtrain.training.run_directory import (
    claim,
    damaged_after,
    find_checkpoint,
    git_commit,
    is_unfinished,
    new_run_dir,
    point_latest,
    read_config,
    write_config,
    write_environment,
)


def make_run(run_dir: Path, *, steps: list[int], max_steps: int = 10) -> Path:
    """Make what these functions look at; the checkpoints hold little more than their step."""
    (run_dir / "checkpoints").mkdir(parents=True)
    write_config(run_dir, {"trainer": {"max_steps": max_steps}})
    for step in steps:
        write_checkpoint(run_dir / f"checkpoints/step_{step:08d}.ckpt", step, max_steps)
    for name in ("last.ckpt", "best.ckpt"):
        (run_dir / "checkpoints" / name).touch()
    return run_dir


def write_checkpoint(file: Path, step: int, max_steps: int = 10) -> None:
    checkpoint = {
        "tokenizer": {"config": {}, "weights": {}},
        "config": {"trainer": {"max_steps": max_steps}},
        "training": {"step": step},
    }
    torch.save(checkpoint, file)


def checkpoint_of(run_dir: Path, step: int) -> Path:
    return run_dir / f"checkpoints/step_{step:08d}.ckpt"


def test_a_new_run_never_takes_a_folder_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "2030-01-02_03-04-05")
    # Many at once, each in a thread of its own.
    with ThreadPoolExecutor(8) as pool:
        names = sorted(run_dir.name for run_dir in pool.map(new_run_dir, 8 * ["demo"]))
    first = "2030-01-02_03-04-05"
    assert names == [first, *(f"{first}_{number}" for number in range(2, 9))]
    assert sorted(path.name for path in (tmp_path / "runs/demo").iterdir()) == names
    (tmp_path / "runs/file").touch()
    with pytest.raises(CheckpointError, match="cannot make runs/file/"):
        new_run_dir("file")


def test_latest_points_to_the_newest_by_a_relative_link(tmp_path: Path) -> None:
    first, second = tmp_path / "runs/a/1", tmp_path / "runs/a/2"
    latest = tmp_path / "runs/a/latest"
    for run_dir in (first, second):
        run_dir.mkdir(parents=True)
        point_latest(run_dir)
        assert latest.readlink() == Path(run_dir.name)
    # Relative, so that it survives when runs/ is moved.
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert (tmp_path / "moved/a/latest").resolve() == tmp_path / "moved/a/2"
    assert sorted(path.name for path in (tmp_path / "moved/a").iterdir()) == ["1", "2", "latest"]


def test_a_link_to_a_run_that_was_deleted_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("deleted")
    (tmp_path / "new").mkdir()
    point_latest(tmp_path / "new")
    assert (tmp_path / "latest").readlink() == Path("new")


def test_a_folder_of_the_users_named_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest/notes.txt").write_text("mine")
    (tmp_path / "new").mkdir()
    point_latest(tmp_path / "new")
    assert (tmp_path / "latest/notes.txt").read_text() == "mine"
    assert not (tmp_path / "latest").is_symlink()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([], False), ([2, 9], True), ([2, 9, 10], False), ([100_000_000], False)],
)
def test_a_run_is_unfinished_before_its_last_step(
    steps: list[int], expected: bool, tmp_path: Path
) -> None:
    assert is_unfinished(make_run(tmp_path / "run", steps=steps)) is expected


def test_a_folder_that_is_no_run_is_not_unfinished(tmp_path: Path) -> None:
    assert not is_unfinished(tmp_path)
    assert not is_unfinished(tmp_path / "absent")


def test_auto_goes_on_with_the_run_directory_that_is_given(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", steps=[9, 10, 8])
    # Also where it is finished: what to do then is for the caller to say.
    assert find_checkpoint("auto", str(run_dir), "any") == checkpoint_of(run_dir, 10)
    assert find_checkpoint("auto", str(tmp_path / "absent"), "any") is None
    empty = make_run(tmp_path / "empty", steps=[])
    assert find_checkpoint("auto", str(empty), "any") is None


def test_auto_goes_on_with_the_latest_run_if_it_is_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("auto", None, "a") is None
    finished = make_run(tmp_path / "runs/a/1", steps=[10])
    point_latest(finished)
    assert find_checkpoint("auto", None, "a") is None
    unfinished = make_run(tmp_path / "runs/a/2", steps=[3, 7])
    assert find_checkpoint("auto", None, "a") is None  # not the latest
    point_latest(unfinished)
    # The run itself and not latest, which may point elsewhere before the run has ended.
    assert find_checkpoint("auto", None, "a") == checkpoint_of(Path("runs/a/2"), 7)
    assert find_checkpoint("auto", None, "b") is None


def test_a_run_or_a_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = make_run(tmp_path / "runs/a/1", steps=[3, 7])
    point_latest(run_dir)
    newest, older = checkpoint_of(run_dir, 7), checkpoint_of(run_dir, 3)
    assert find_checkpoint(str(run_dir), None, "any") == newest
    for link in ("runs/a/latest", "runs/a/latest/checkpoints/step_00000007.ckpt"):
        assert find_checkpoint(str(tmp_path / link), None, "any") == newest
    assert find_checkpoint(str(older), None, "any") == older
    assert find_checkpoint(str(run_dir), "elsewhere", "any") == newest
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_checkpoint("~/runs/a/1", None, "any") == newest
    monkeypatch.chdir(tmp_path)
    # As it was given, but for the link, which may point elsewhere before the run has ended.
    for given in ("runs/a/1", "runs/a/latest", f"runs/a/latest/checkpoints/{newest.name}"):
        assert find_checkpoint(given, None, "any") == checkpoint_of(Path("runs/a/1"), 7)
    monkeypatch.chdir(newest.parent)
    found = find_checkpoint(newest.name, None, "any")
    assert found is not None
    assert found.parent.parent == run_dir


@pytest.mark.parametrize("resume", ["auto", "run"])
def test_copies_are_not_taken_for_checkpoints(
    resume: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_dir = make_run(tmp_path / "run", steps=[3, 7])
    for name in ("step_good.ckpt", "step_00000007 (copy).ckpt", "step_00000099.ckpt"):
        shutil.copy(checkpoint_of(run_dir, 3), run_dir / "checkpoints" / name)
    found = find_checkpoint(resume, "run", "any")
    assert found is not None
    assert found.resolve() == checkpoint_of(run_dir, 7)
    assert damaged_after(found) == []


def test_a_damaged_checkpoint_leads_to_the_one_before(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", steps=[3, 7, 9])
    for step, keep in ((7, 0), (9, -10)):
        file = checkpoint_of(run_dir, step)
        file.write_bytes(file.read_bytes()[:keep])
    assert find_checkpoint(str(run_dir), None, "any") == checkpoint_of(run_dir, 3)
    damaged = [checkpoint_of(run_dir, 7), checkpoint_of(run_dir, 9)]
    assert damaged_after(checkpoint_of(run_dir, 3)) == damaged
    checkpoint_of(run_dir, 3).unlink()
    # Then there is nothing to continue, and nothing to write over.
    for resume in (str(run_dir), "auto"):
        with pytest.raises(CheckpointError, match=r"cannot read .*00009\.ckpt: it is damaged"):
            find_checkpoint(resume, str(run_dir), "any")
    with pytest.raises(CheckpointError, match="holds the checkpoints of a run"):
        claim(run_dir, resuming=False)


@pytest.mark.parametrize("text", ["", "a: ["])
def test_without_a_configuration_that_of_the_checkpoint_counts(text: str, tmp_path: Path) -> None:
    for step, expected in ((7, True), (10, False)):
        run_dir = make_run(tmp_path / str(step), steps=[step])
        (run_dir / "config.yaml").write_text(text)
        assert is_unfinished(run_dir) is expected


def test_nothing_to_go_on_with_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot resume from .*: there is no such file"):
        find_checkpoint(str(tmp_path / "absent"), None, "any")
    with pytest.raises(CheckpointError, match=r"cannot resume from .*: it holds no checkpoint"):
        find_checkpoint(str(tmp_path), None, "any")


def test_a_configuration_comes_back_as_it_was(tmp_path: Path) -> None:
    config = {
        "name": "caf\u00e9",
        "data": {"train": "/a b/{000..099}.tar", "val": ["~/\u00fcber", "x=#1"]},
        "resume": None,
        "betas": [0.9, 0.99],
        "share": "10%",
        "time": "00:10:00",
    }
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert "caf\u00e9" in text  # readable
    assert text.index("name") < text.index("data")  # in the order in which it was composed


@pytest.mark.parametrize("text", [None, "a: [", "- a list"])
def test_a_damaged_configuration_is_named(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.yaml: "):
        read_config(tmp_path)


def test_the_environment_names_versions_and_no_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of-the-environment")
    commands = ["vqtrain train seed=1", "vqtrain train resume=auto"]
    write_environment(tmp_path, commands=commands, processes=2)
    text = (tmp_path / "environment.json").read_text()
    facts = json.loads(text)
    assert (facts["commands"], facts["processes"]) == (commands, 2)
    assert (facts["torch"], facts["python"]) == (torch.__version__, platform.python_version())
    assert facts["CPU"]
    assert "of-the-environment" not in text
    assert platform.node() not in [str(value) for value in facts.values()]


def test_a_checkout_names_its_commit_and_a_wheel_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_directory, "__file__", str(tmp_path / "a/b/run_directory.py"))
    assert git_commit() is None
    (tmp_path / ".git").mkdir()  # not one that git can read
    assert git_commit() is None
    shutil.rmtree(tmp_path / ".git")
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    assert re.fullmatch("[0-9a-f]{40,64}", git_commit() or "")


def test_a_run_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    run_dir = tmp_path / "a/b/run"
    with claim(run_dir, resuming=False):
        assert run_dir.is_dir()
        with pytest.raises(CheckpointError, match=f"{run_dir} is in use by another process"):
            claim(run_dir, resuming=False)
    with claim(run_dir, resuming=False):
        pass


def test_a_run_with_checkpoints_is_claimed_only_to_go_on(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", steps=[3])
    with pytest.raises(CheckpointError, match=f"give resume={run_dir} to continue it"):
        claim(run_dir, resuming=False)
    with claim(run_dir, resuming=True):
        pass


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot make run_dir=.*file/run: "):
        claim(tmp_path / "file/run", resuming=False)
