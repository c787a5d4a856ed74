"""Two gloo ranks make the very steps that one process makes of the joined batch."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

STEPS, START = 50, 20
WORDS = [
    f"loss.adversarial.start_step={START}",
    "loss.adversarial.ramp_steps=5",
    "optim.lr=3.0e-3",
    "trainer.precision=64-true",
    f"trainer.max_steps={STEPS}",
    "trainer.log_every=10",
    "trainer.validate_every=25",
    f"trainer.checkpoint_every={STEPS}",
]
SOUND_ADVERSARIAL = [
    "discriminator=msstft",
    "discriminator.channels=4",
    "discriminator.frames=[32,16]",
    "loss.adversarial.weight=0.5",
]
RESTARTING = ["codebook.decay=0.8", "codebook.restart_below=0.5"]

# Runs the command line, keeps what every rank ends with, and spoils a gradient where it is told to.
SCRIPT = """
import os, sys
from pathlib import Path
import torch
import vqtrain.app.parts.training as command
from vqtrain.cli import main
from vqtrain.training.module import TokenizerTraining

fit, step = command.fit, TokenizerTraining.training_step
spoiled = [int(number) for number in os.environ.get("SPOILED", "").split(",") if number]

def training_step(self, batch, batch_idx):
    if self.step in spoiled and self.global_rank == 1:
        batch.samples[0, 0, 0, 0] = 0
        hook = self.tokenizer.project_in.register_forward_hook(lambda m, x, y: y * float("nan"))
        step(self, batch, batch_idx)
        hook.remove()
    else:
        step(self, batch, batch_idx)

def fit_and_save(*, module, trainer, **others):
    try:
        return fit(module=module, trainer=trainer, **others)
    finally:
        objective = module.objective
        average = module.average.state_dict()
        state = {
            "tokenizer": module.tokenizer.state_dict(),
            "average": average,
            "discriminator": objective.discriminator.state_dict(),
            "adversarial": objective.adversarial.state_dict(),
            "counts": torch.tensor([module.step, module.optim.skipped_steps]),
        }
        flat = {f"{a}.{b}": t for a, group in state.items() if isinstance(group, dict)
                for b, t in group.items()}
        states = Path(os.environ["STATES"])
        torch.save({**flat, "counts": state["counts"]}, states / f"rank-{trainer.global_rank}.pt")
        others = ("wandb", "tensorboard", "av", "soundfile", "soxr")
        imported = [name for name in others if name in sys.modules]
        (states / f"modules-{trainer.global_rank}").write_text(" ".join(imported))

TokenizerTraining.training_step = training_step
command.fit = fit_and_save
sys.exit(main(sys.argv[1:]))
"""

Outcome = tuple[subprocess.CompletedProcess[str], list[dict[str, torch.Tensor]], list[dict]]


@pytest.fixture
def train(
    tmp_path: Path,
    tiny_of: Callable[[str], list[str]],
    adversarial_words: list[str],
    start_python: Callable[..., subprocess.Popen[str]],
) -> Callable[..., Outcome]:
    """Train in a number of processes; return the states of all ranks and the logged lines."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def train(name: str, *words: str, network: str = "vqvae", **variables: str) -> Outcome:
        states, run = tmp_path / f"{name}-states", tmp_path / name
        states.mkdir()
        adversarial = SOUND_ADVERSARIAL if network == "jukebox" else adversarial_words
        typed = [*tiny_of(network), *adversarial, *WORDS, *words, f"run_dir={run}"]
        process = start_python(
            *(script, "train", *typed),
            variables={"STATES": str(states), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        printed = process.communicate(timeout=180)
        done = subprocess.CompletedProcess(process.args, process.returncode, *printed)
        files = sorted(states.glob("rank-*.pt"))
        lines = (run / "metrics.jsonl").read_text().splitlines()
        return done, [torch.load(file) for file in files], [json.loads(line) for line in lines]

    return train


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("vit", ["loss.adversarial.adaptive=true", *RESTARTING]),
        # Starts from whitened latents; near a temperature of 0 rounding errors would grow.
        (
            "latent_query",
            [
                *("loss.adversarial.adaptive=false", "loss.balancer.enabled=true"),
                *("codebook=gumbel", "codebook.final_temperature=1"),
            ],
        ),
        ("magvit2_video", ["loss.adversarial.adaptive=true", *RESTARTING]),
        ("jukebox", ["loss.adversarial.adaptive=true", *RESTARTING]),
    ],
    ids=[
        *("vit-adaptive-ema", "latent_query-balanced-gumbel"),
        *("magvit2_video-adaptive-ema", "jukebox-adaptive-ema"),
    ],
)
def test_two_ranks_equal_one_process_on_the_joined_batch(
    network: str, words: list[str], train: Callable[..., Outcome]
) -> None:
    cuts = {
        "one": ["data.batch_size=8"],
        "two": ["trainer.devices=2", "data.batch_size=4"],
        "two-by-two": ["trainer.devices=2", "data.batch_size=2", "trainer.accumulate=2"],
    }
    with ThreadPoolExecutor() as pool:
        first, *others = pool.map(
            lambda name: train(name, *words, *cuts[name], network=network), cuts
        )
    done, (one,), one_lines = first
    assert done.returncode == 0, done.stderr
    # Its normalization of single channels enlarges what sums in another order round differently.
    allowed = 1e-6 if network == "magvit2_video" else 1e-9
    # The game has begun in it, and the discriminator has moved the tokenizer.
    assert abs(one_lines[-1]["train/generator/adversarial"]) > 1e-3
    assert "train/generator/adversarial" not in one_lines[0]
    for done, ranks, lines in others:
        assert done.returncode == 0, done.stderr
        assert len(ranks) == 2
        for key, expected in one.items():
            assert torch.equal(ranks[0][key], ranks[1][key]), key
            torch.testing.assert_close(ranks[0][key], expected, rtol=0, atol=allowed, msg=key)
        for a, b in zip(one_lines, lines, strict=True):
            assert a == pytest.approx(b, rel=allowed, abs=allowed)


@pytest.mark.ddp
def test_a_step_that_is_bad_on_one_rank_is_skipped_on_both(
    train: Callable[..., Outcome], tmp_path: Path
) -> None:
    done, ranks, lines = train("run", "trainer.devices=2", SPOILED="3,30")
    assert done.returncode == 0, done.stderr
    for key, tensor in ranks[0].items():
        assert torch.equal(tensor, ranks[1][key]), key
        assert tensor.isfinite().all(), key
    assert ranks[0]["counts"].tolist() == [STEPS, 2]
    assert lines[-1]["train/skipped_steps"] == 2
    # Training on images needs no library of trackers, videos or sounds.
    assert [(tmp_path / f"run-states/modules-{rank}").read_text() for rank in (0, 1)] == ["", ""]


@pytest.mark.ddp
def test_after_twenty_bad_steps_both_ranks_stop_with_a_checkpoint(
    train: Callable[..., Outcome], tmp_path: Path
) -> None:
    bad = ",".join(map(str, range(5, 50)))
    done, ranks, _ = train("run", "trainer.devices=2", SPOILED=bad)
    assert done.returncode == 1
    # One line of each process.
    assert done.stderr.count("20 steps in a row had a loss or a gradient that is not finite") == 2
    assert "Traceback" not in done.stderr
    assert [rank["counts"].tolist() for rank in ranks] == [[25, 20], [25, 20]]
    state = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["training"]
    assert state["step"] == 25
    assert all(tensor.isfinite().all() for tensor in state["weights"].values())


@pytest.mark.ddp
def test_two_ranks_make_one_offline_run_of_wandb(
    train: Callable[..., Outcome], tmp_path: Path
) -> None:
    short = ["trainer.max_steps=4", "loss.adversarial.start_step=1", "trainer.validate_every=2"]
    done, _, _ = train("run", "trainer.devices=2", "logger=wandb", *short, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    (offline,) = (tmp_path / "run/wandb").glob("offline-run-*")
    assert len(list(offline.glob("files/media/images/**/*.png"))) == 2
    modules = [(tmp_path / f"run-states/modules-{rank}").read_text() for rank in (0, 1)]
    assert modules == ["wandb", ""]


@pytest.mark.ddp
@pytest.mark.parametrize("dying", [0, 1])
def test_when_a_rank_dies_the_other_stops_with_a_sentence(
    dying: int, tiny: list[str], tmp_path: Path, start_vqtrain: Callable[..., subprocess.Popen[str]]
) -> None:
    run = tmp_path / "run"
    words = [*tiny, "trainer.max_steps=100000", "trainer.validate_every=100000"]
    process = start_vqtrain("train", *words, "trainer.devices=2", f"run_dir={run}")
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    # Without the one that forks processes for it.
    ranks = [pid for pid in children if b"zygote" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    pids = [process.pid, *map(int, ranks)]
    assert len(pids) == 2
    began = time.monotonic()
    os.kill(pids[dying], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    if dying == 1:
        assert process.returncode == 1, (out, err)
    assert "another process of the run" in err or "process 1 ended with code -9" in err
    assert "resume=" in err
    assert "Traceback" not in err
