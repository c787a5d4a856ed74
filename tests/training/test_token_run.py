"""Training a model over token ids: its steps, how it ends, and how it is continued."""

import json
import math
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vqtrain.errors import CheckpointError, ConfigError, DataError, FailedError, VqtrainError
from vqtrain.generation.base import Condition
from vqtrain.generation.causal import Causal
from vqtrain.generation.form import TokenForm
from vqtrain.ops.noise import SampleNoise
from vqtrain.training.token_arrays import TokenArrays
from vqtrain.training.token_run import TokenRun, TokenRunSettings, load_best, train_token_model

STEPS, SAMPLES = 12, 40
SETTINGS = TokenRunSettings(
    steps=STEPS,
    batch_size=8,
    accumulate=1,
    lr=1e-2,
    max_time=None,
    accelerator="cpu",
    devices=1,
    precision="64-true",
    seed=0,
)
FORM = TokenForm(size=6, num_codebooks=1, token_shape=(2, 2))
CLASSES = Condition(size=3, length=1)


def model_of() -> Causal:
    torch.manual_seed(0)
    return Causal(form=FORM, condition=CLASSES, depth=1, dim=32, order="interleaved").double()


def arrays_of(count: int, digest: str) -> TokenArrays:
    random = np.random.default_rng(count)
    conditions = random.integers(0, 3, (count, 1))
    ids = (conditions[:, :, None] + random.integers(0, 3, (count, 2, 2))).astype(np.uint8)
    return TokenArrays(token_ids=ids, conditions=conditions, digest=digest)


TRAINING, HELD_OUT = arrays_of(SAMPLES, "training"), arrays_of(5, "held out")


def run_of(run_dir: Path, model: Causal, **changes: object) -> TokenRun | None:
    """Train with changes of the settings and of what else there is."""
    keys = {"training", "validation", "config"}
    own = {"training": TRAINING, "validation": HELD_OUT, "config": {"order": "interleaved"}}
    given = own | {key: value for key, value in changes.items() if key in keys}
    settings = {key: value for key, value in changes.items() if key not in keys}
    return train_token_model(
        model=model,
        num_positions=64,
        settings=replace(SETTINGS, **settings),  # type: ignore[arg-type]  # as the test says
        command="vqtrain probe",
        run_dir=run_dir,
        **given,  # type: ignore[arg-type]  # as the test says
    )


def train(run_dir: Path, model: Causal | None = None, **changes: object) -> TokenRun:
    """Train in this process."""
    run = run_of(run_dir, model or model_of(), **changes)
    assert run is not None
    return run


def metrics_of(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_steps_are_those_of_plain_torch(tmp_path: Path) -> None:
    model, mine = model_of(), model_of()
    train(tmp_path / "run", model)
    decayed = [p for p in mine.parameters() if p.ndim >= 2]
    others = [p for p in mine.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95))
    ids = torch.from_numpy(TRAINING.token_ids.astype(np.int64))
    classes = torch.from_numpy(TRAINING.conditions)
    orders = [np.random.Generator(np.random.PCG64([0, n])).permutation(SAMPLES) for n in (0, 1, 2)]
    order, losses = np.concatenate(orders), []
    for step in range(STEPS):
        batch = order[8 * step : 8 * step + 8]
        loss = mine.loss(ids[batch], classes[batch], SampleNoise(seeds=[])).mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(mine.parameters(), 1.0)
        # A warm-up over 5 % of 12 steps, which is 1, then a cosine over the rest.
        rate = 1.0 if step == 0 else 0.5 * (1 + math.cos(math.pi * (step - 1) / (STEPS - 1)))
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * rate
        optimizer.step()
    for (name, found), expected in zip(model.named_parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12, msg=name)
    logged = metrics_of(tmp_path / "run")
    assert [line["train/loss"] for line in logged] == pytest.approx(losses, abs=1e-12)
    assert logged[0]["train/bits_per_token"] == pytest.approx(losses[0] / math.log(2))


def test_a_run_says_how_many_bits_held_out_ids_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    run = train(run_dir, lr=0.3)  # so high that the last step is not the best one
    steps = [line["step"] for line in metrics_of(run_dir) if "val/bits_per_pixel" in line]
    assert [point.step for point in run.curve] == steps
    assert len(steps) >= 3
    best = min(run.curve, key=lambda point: point.bits_per_pixel)
    assert (run.best_step, run.bits_per_pixel) == (best.step, best.bits_per_pixel)
    # Worked out from the weights of that step: all ids of 5 samples, over 64 positions each.
    best_of = model_of()
    load_best(best_of, run_dir)
    ids = torch.from_numpy(HELD_OUT.token_ids.astype(np.int64))
    nats = best_of.nats(ids, torch.from_numpy(HELD_OUT.conditions), SampleNoise(seeds=[]))
    bits = nats.sum().item() / math.log(2) / 5
    assert run.bits_per_pixel == pytest.approx(bits / 64, abs=1e-12)
    assert run.bits_per_token == pytest.approx(bits / 4, abs=1e-12)
    assert {path.name for path in run_dir.iterdir()} >= {
        *("config.yaml", "environment.json", "log.txt", "metrics.jsonl", "checkpoints")
    }
    said = capsys.readouterr().out
    assert "ids: 40 training samples, 5 validation samples, 4 ids each out of 6" in said
    assert "length: 12 steps of 8 samples, 2.4 epochs, on the CPU" in said
    # Once it is finished, it is read.
    again = train(run_dir, lr=0.3)
    assert (again.curve, again.outcome.reason) == (run.curve, "finished")
    assert capsys.readouterr().out == ""


def test_a_run_that_is_out_of_time_says_so_and_continues_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole)
    for step in (1, 2):
        capsys.readouterr()
        assert train(parts, max_time="00:00:00").outcome.reason == "time"
        said = capsys.readouterr().out
        assert said.endswith(f"out of time at step {step}; continue with the same command\n")
    train(parts)
    assert "resuming at step 2" in capsys.readouterr().out
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_validation_costs_a_share_of_the_training() -> None:
    # Training on 800 samples costs as much as validating on 2400, of which 20 % are 480.
    long = replace(SETTINGS, steps=100)
    for held_out, every in ((60, 13), (120, 25), (9999, 25), (1, 5)):  # of 8, 4, 4, 20
        assert long.trainer(held_out).validate_every == every


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    run_dir = tmp_path_factory.mktemp("begun")
    train(run_dir, steps=1)
    return run_dir


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"lr": 2e-2}, CheckpointError, "was begun with lr=0.01, got 0.02: give the same"),
        ({"config": {"order": "x"}}, CheckpointError, "was begun with order=interleaved, got x"),
        ({"training": arrays_of(SAMPLES, "else")}, CheckpointError, "begun with other token ids"),
        ({"validation": arrays_of(5, "else")}, CheckpointError, "begun with other token ids"),
        (
            {"training": arrays_of(7, "few")},
            ConfigError,
            "there are 7 training samples, fewer than batch_size=8 of a step",
        ),
        (
            {"validation": replace(HELD_OUT, token_ids=HELD_OUT.token_ids + np.uint8(2))},
            DataError,
            r"validation ids are \[2, 2\] up to 6, those of the model \[2, 2\] below 6",
        ),
        ({"accumulate": 3}, ConfigError, "batch_size=8 cannot be split evenly over devices=1 x"),
    ],
    ids=["setting", "config", "training", "validation", "few", "vocabulary", "split"],
)
def test_what_would_alter_the_figures_is_refused_in_one_line(
    changes: dict[str, object], error: type[VqtrainError], message: str, begun: Path
) -> None:
    with pytest.raises(error, match=message) as raised:
        train(begun, steps=1, **changes)
    assert "\n" not in str(raised.value)


def spoil(model: Causal, steps: range, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Make the loss of some steps NaN; return the weights before each step, one of all."""
    own, weights = model.loss, []

    def loss(*arguments: object) -> Tensor:
        weights.append(model.network.positions.detach().clone())
        factor = math.nan if len(weights) - 1 in steps else 1.0
        return own(*arguments) * factor  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(model, "loss", loss)
    return weights


def test_a_step_that_is_not_finite_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of()
    before = spoil(model, range(3, 5), monkeypatch)
    run = train(tmp_path / "run", model)
    assert [torch.equal(a, b) for a, b in pairwise(before)] == [
        *[False] * 3,
        *[True] * 2,
        *[False] * 6,
    ]
    last = metrics_of(tmp_path / "run")[-1]
    assert (last["step"], last["train/skipped_steps"]) == (STEPS, 2)
    assert run.outcome.reason == "finished"


def test_twenty_such_steps_end_the_run_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of()
    spoil(model, range(2, 99), monkeypatch)
    with pytest.raises(FailedError, match=r"20 steps in a row .* Lower transformer\.lr"):
        train(tmp_path / "run", model, steps=99)
    assert (tmp_path / "run/checkpoints/step_00000022.ckpt").is_file()


# Keeps the weights of each rank; Lightning starts it again for the others.
SCRIPT = f"""
import json, os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from test_token_run import model_of, run_of
from vqtrain import distributed

model, (run_dir, settings) = model_of(), sys.argv[1:]
run = run_of(Path(run_dir), model, **json.loads(settings))
rank = os.environ.get("LOCAL_RANK", "0")
assert (run is None) == (rank != "0") and distributed.world_size() == 1
torch.save(model.state_dict(), f"{{run_dir}}/rank-{{rank}}.pt")
"""
StartRun = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_run(start_python: StartRun, tmp_path: Path) -> StartRun:
    """Start a run with a name and changed settings in a process of its own."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def start(name: str, **settings: object) -> subprocess.Popen[str]:
        words = (script, tmp_path / name, json.dumps(settings))
        return start_python(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def wait_for(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.ddp
def test_two_ranks_equal_one(start_run: StartRun, tmp_path: Path) -> None:
    cuts = {"one": {}, "two": {"devices": 2}, "two-by-two": {"devices": 2, "accumulate": 2}}
    for process in [start_run(name, **cut) for name, cut in cuts.items()]:
        wait_for(process)
    expected, lines = torch.load(tmp_path / "one/rank-0.pt"), metrics_of(tmp_path / "one")
    for name in ("two", "two-by-two"):
        for line, of_one in zip(metrics_of(tmp_path / name), lines, strict=True):
            assert line == pytest.approx(of_one, rel=1e-9, abs=1e-9)
        ranks = [torch.load(tmp_path / name / f"rank-{rank}.pt") for rank in (0, 1)]
        for key, tensor in expected.items():
            assert torch.equal(ranks[0][key], ranks[1][key]), key
            torch.testing.assert_close(ranks[0][key], tensor, rtol=0, atol=1e-9, msg=key)


@pytest.mark.slow
def test_a_killed_run_ends_where_an_unbroken_one_ends(start_run: StartRun, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = {"steps": 200, "precision": "32-true", "accumulate": 2}
    unbroken, killed = (start_run(name, **settings) for name in ("whole", "broken"))
    deadline = time.monotonic() + 120
    while not (broken / "checkpoints/step_00000020.ckpt").exists():
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    wait_for(unbroken)
    said = wait_for(start_run("broken", **settings))
    step = int(said.partition("resuming at step ")[2].split()[0])
    assert 20 <= step < 200, "the kill came too late to show anything"
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    both = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, broken)]
    for key, tensor in both[0]["model"].items():
        assert torch.equal(both[1]["model"][key], tensor), key
    commands = json.loads((broken / "environment.json").read_text())["commands"]
    assert commands == ["vqtrain probe"] * 2
