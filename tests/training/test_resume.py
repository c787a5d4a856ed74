"""A run that is killed and resumed ends bit for bit where an unbroken one ends."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtrain.cli import main

STEPS = 24
SETTINGS = [
    f"trainer.max_steps={STEPS}",
    "trainer.log_every=3",
    "trainer.validate_every=8",  # a checkpoint falls on each validation, and one on neither
    "trainer.checkpoint_every=4",
    "trainer.keep_checkpoints=100",
    "optim.schedule=cosine",
    "optim.warmup_steps=5",
]
CNN = [
    "encoder=cnn",
    "decoder=cnn",
    "codebook=vq",
    "encoder.channels=8",
    "encoder.multipliers=[1,2,2]",
    "encoder.num_blocks=1",
    "encoder.attention_factors=[4]",
    "encoder.latent_channels=8",
    "encoder.dropout=0.1",
    "decoder.channels=8",
    "decoder.multipliers=[1,2,2]",
    "decoder.num_blocks=1",
    "decoder.attention_factors=[4]",
    "decoder.latent_channels=8",
    "decoder.dropout=0.1",
    "codebook.size=16",
    "codebook.dim=4",
    "data.image_size=16",
    "data.batch_size=4",
    "trainer.accelerator=cpu",
    "trainer.accumulate=2",
]

Start = Callable[..., subprocess.Popen[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]


def load(file: Path) -> dict[str, object]:
    return torch.load(file, weights_only=True)


def assert_equal(a: object, b: object, where: str = "") -> None:
    """Compare nested plain data and tensors bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor)
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        assert len(a) == len(b), where
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{number}")
    else:
        assert a == b, where


def kill_after(process: subprocess.Popen[str], file: Path, number: int) -> None:
    """Send a signal as soon as a file is there, while the run is still going on."""
    deadline = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    process.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "workers"),
    [
        ("vit", 0),
        ("latent_query", 0),
        ("magvit2_video", 2),
        pytest.param("magvit2_video", 0, marks=pytest.mark.soak),
        ("jukebox", 2),
        pytest.param("jukebox", 0, marks=pytest.mark.soak),
        pytest.param("cnn", 2, marks=pytest.mark.soak),
    ],
)
def test_a_killed_run_ends_where_an_unbroken_one_ends(
    network: str,
    workers: int,
    tiny_of: Callable[[str], list[str]],
    pictures: Path,
    tmp_path: Path,
    vqtrain: Run,
    start_vqtrain: Start,
) -> None:
    words = [f"data.train={pictures}", *CNN] if network == "cnn" else tiny_of(network)
    if network == "latent_query":  # the means of two terms, one of which begins after the kill
        words = [
            *words,
            "loss.balancer.enabled=true",
            "loss/squared=l2",
            "loss.squared.start_step=9",
        ]
    words = ["train", *words, *SETTINGS]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done = vqtrain(*words, "data.num_workers=0", f"run_dir={unbroken}")
    assert done.returncode == 0, done.stderr
    words.append(f"data.num_workers={workers}")

    first_file = broken / "checkpoints/step_00000008.ckpt"
    process = start_vqtrain(*words, f"run_dir={broken}")
    kill_after(process, first_file, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = first_file.read_bytes()
    reached = max(int(p.stem[5:]) for p in first_file.parent.glob("step_*"))
    assert 8 <= reached < STEPS, "the kill came too late to show anything"
    stamp = first_file.stat().st_mtime_ns

    done = vqtrain(*words, f"run_dir={broken}", "resume=auto")
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {reached}" in done.stdout
    first_logged = next(line for line in done.stdout.splitlines() if line.startswith("step "))
    assert first_logged.startswith(f"step {reached + 3 - reached % 3}/")
    assert (first_file.read_bytes(), first_file.stat().st_mtime_ns) == (before, stamp)

    a = load(unbroken / "checkpoints/last.ckpt")
    b = load(broken / "checkpoints/last.ckpt")
    a["config"]["run_dir"] = b["config"]["run_dir"]  # type: ignore[index]  # plain data
    a["config"]["data"]["num_workers"] = workers  # type: ignore[index]  # plain data
    assert_equal(a, b)
    metrics = (unbroken / "metrics.jsonl").read_bytes()
    assert (broken / "metrics.jsonl").read_bytes() == metrics
    steps = [json.loads(line)["step"] for line in metrics.splitlines()]
    assert steps == [3, 6, 8, 9, 12, 15, 16, 18, 21, 24]


GAN = [
    "loss.adversarial.ramp_steps=6",
    "optim.discriminator.schedule=cosine",
    "optim.discriminator.warmup_steps=2",
]


@pytest.mark.ddp
def test_a_killed_game_goes_on_where_it_was(
    tiny: list[str], adversarial_words: list[str], tmp_path: Path, start_vqtrain: Start
) -> None:
    words = ["train", *tiny, *SETTINGS, *adversarial_words, *GAN, "trainer.devices=2"]
    words += ["trainer.precision=16-mixed"]
    words += ["loss.adversarial.start_step=8", "codebook.decay=0.8", "optim.lr=3.0e-3"]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    processes = [start_vqtrain(*words, f"run_dir={run}") for run in (unbroken, broken)]
    # Killed as adversarial training begins.
    checkpoint = broken / "checkpoints/step_00000008.ckpt"
    kill_after(processes[1], checkpoint, signal.SIGKILL)
    _, errors = processes[0].communicate(timeout=120)
    assert processes[0].returncode == 0, errors
    expected = load(unbroken / "checkpoints/last.ckpt")
    lines = (unbroken / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["train/adversarial/share"] > 0.01
    state = expected["training"]["discriminator"]["optimizer"]["state"]  # type: ignore[index]  # plain data
    assert state[0]["step"].item() == STEPS - 8

    for file in checkpoint.parent.glob("step_*.ckpt"):
        if file.name > checkpoint.name:  # the kill was late: as if it had come at step 8
            file.unlink()
    resumed = {8: start_vqtrain(*words, f"run_dir={broken}", "resume=auto")}
    # Ended before it begins, and in the midst of it.
    for step in (4, 12):
        file = unbroken / f"checkpoints/step_{step:08d}.ckpt"
        words_of_step = [*words, f"run_dir={tmp_path / str(step)}", f"resume={file}"]
        resumed[step] = start_vqtrain(*words_of_step)
    for step, process in resumed.items():
        printed, errors = process.communicate(timeout=120)
        assert f"resuming at step {step}" in printed, errors
    for run, begins in [(broken, 0), (tmp_path / "4", 4), (tmp_path / "12", 12)]:
        found = load(run / "checkpoints/last.ckpt")
        found["config"]["run_dir"] = expected["config"]["run_dir"]  # type: ignore[index]  # plain data
        assert_equal(found, expected)
        later = [line for line in lines if json.loads(line)["step"] > begins]
        assert (run / "metrics.jsonl").read_text().splitlines() == later


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_with_a_checkpoint_of_that_step(
    number: int,
    code: int,
    tiny: list[str],
    tmp_path: Path,
    start_vqtrain: Start,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["train", *tiny, "trainer.max_steps=100000", "trainer.checkpoint_every=100000"]
    words += ["data.num_workers=2", "trainer.validate_every=100000", f"run_dir={tmp_path / 'run'}"]
    process = start_vqtrain(*words)
    metrics = tmp_path / "run/metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, number)  # to the workers too, as terminals and clusters do
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert err == ""
    assert "stopped by a signal at step" in out
    assert "resume=" in out
    (file,) = (tmp_path / "run/checkpoints").glob("step_*.ckpt")
    step = load(file)["training"]["step"]  # type: ignore[index]  # plain data
    assert file.stem == f"step_{step:08d}"
    last = metrics.read_text().splitlines()[-1]
    assert json.loads(last)["step"] == step
    assert main(["train", f"resume={tmp_path / 'run'}", f"trainer.max_steps={step + 1}"]) == 0
    printed = capsys.readouterr().out
    assert f"resuming at step {step}" in printed
    assert "warning: trainer.max_steps was 100000" in printed


@pytest.mark.ddp
# Sooner it would meet Python itself in the second process, which says so.
@pytest.mark.parametrize(("devices", "wait_s"), [(1, 0.3), (2, 0.6), (2, 2.0)])
def test_a_signal_before_the_first_step_ends_all_at_once(
    devices: int, wait_s: float, tiny: list[str], tmp_path: Path, start_vqtrain: Start
) -> None:
    words = ["train", *tiny, f"trainer.devices={devices}", "trainer.max_steps=1000000"]
    words += ["trainer.log_every=1000000", f"run_dir={tmp_path / 'run'}"]
    process = start_vqtrain(*words, starts_new=True)  # whose imports the signal may meet
    log = tmp_path / "run/log.txt"
    deadline = time.monotonic() + 120
    while not log.exists() or "batch: " not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(wait_s)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)  # ends when the last process has closed its output
    assert process.returncode == 130, err
    assert err == ""


@pytest.mark.slow
def test_out_of_time_ends_with_a_checkpoint_and_without_an_error(
    tiny: list[str], tmp_path: Path, vqtrain: Run
) -> None:
    run = tmp_path / "run"
    words = ["train", *tiny, "trainer.max_steps=100000", "trainer.max_time=00:00:01"]
    done = vqtrain(*words, "trainer.checkpoint_every=100000", f"run_dir={run}")
    assert done.returncode == 0, done.stderr
    assert "out of time at step" in done.stdout
    assert (run / "checkpoints/last.ckpt").exists()
