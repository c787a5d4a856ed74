"""The user's own callbacks: how they are built, when they are called, what a resume restores."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from vqtrain.errors import ConfigError
from vqtrain.training.checkpoints import read
from vqtrain.training.console import RunConsole
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.step_end import StepEnd
from vqtrain.training.user_callbacks import build_callbacks


class Counter(Callback):
    """Counts steps, and notes what it is called with."""

    def __init__(self, every: int = 1, state: object = None, stop_at_batch: int = 0) -> None:
        self.every, self.state, self.stop_at_batch = every, state, stop_at_batch
        self.steps, self.batches = 0, 0
        self.calls: list[tuple[str, int]] = []
        self.psnr: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the step at which the run begins."""
        del trainer
        self.note("start", pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        """Count."""
        self.batches += 1
        assert isinstance(pl_module, TokenizerTraining)
        if pl_module.step_has_ended:
            self.steps += 1
            self.note("step", pl_module)
        trainer.should_stop = trainer.should_stop or self.batches == self.stop_at_batch

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the results."""
        self.note("validation", pl_module)
        self.psnr.append(float(trainer.callback_metrics["val/psnr"]))

    def note(self, what: str, pl_module: LightningModule) -> None:
        """Note a call, with the step."""
        assert isinstance(pl_module, TokenizerTraining)
        self.calls.append((what, pl_module.step))

    def state_dict(self) -> dict[str, object]:
        """Return the count."""
        return {"steps": self.steps, "state": self.state}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Take the count over."""
        assert isinstance(state_dict["steps"], int)
        self.steps = state_dict["steps"]


class TakesAnything(Callback):
    """Its arguments are its own business."""

    def __init__(self, **options: object) -> None:
        self.options = options


class Refuses(Callback):
    """Refuses its argument."""

    def __init__(self, size: int) -> None:
        raise RuntimeError(f"not {size}")


def test_callbacks_are_built_from_their_kinds_and_arguments() -> None:
    callbacks = build_callbacks(
        {
            "mine": {"kind": f"{__name__}:Counter", "every": 3},
            "any": {"kind": f"{__name__}:TakesAnything", "log_every": "10%", "name": "x"},
            "absent": None,
            "stop": {"kind": "lightning.pytorch.callbacks:EarlyStopping", "monitor": "val/psnr"},
        },
        max_steps=50,
    )
    assert list(callbacks) == ["mine", "any", "stop"]
    mine, anything, stop = callbacks.values()
    assert isinstance(mine, Counter)
    assert mine.every == 3
    assert isinstance(anything, TakesAnything)
    assert anything.options == {"log_every": 5, "name": "x"}
    assert isinstance(stop, EarlyStopping)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "nowhere:Mine"}, "callbacks.mine.kind: cannot import 'nowhere:Mine'"),
        ({"kind": "math:pi"}, "callbacks.mine.kind: 'math:pi' is not a class"),
        (
            {"kind": "pathlib:Path"},
            "callbacks.mine.kind: pathlib:Path must inherit from lightning.",
        ),
        ({"kind": "mine"}, "callbacks.mine.kind must be package.module:Class, got 'mine'"),
        ({"every": 3}, "callbacks.mine.kind must be package.module:Class, got None"),
        (3, "callbacks.mine must hold a kind and its arguments"),
        (
            {"kind": f"{__name__}:Counter", "ever": 3},
            "callbacks.mine: unknown key 'ever', did you mean 'every'?",
        ),
        ({"kind": f"{__name__}:Refuses"}, "missing 1 required positional argument: 'size'"),
        ({"kind": f"{__name__}:Refuses", "size": 3}, f"cannot build {__name__}:Refuses: not 3"),
    ],
)
def test_a_callback_that_cannot_be_is_one_line(settings: object, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build_callbacks({"mine": settings}, max_steps=50)


Train = Callable[..., StepEnd]


@pytest.fixture
def train(
    make_module: Callable[..., TokenizerTraining],
    make_data: Callable[..., TrainingData],
    make_step_end: Callable[..., StepEnd],
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> Train:
    """Train with callbacks of a user, from the last checkpoint if that is asked for."""

    def train(*, resume: bool = False, **options: object) -> StepEnd:
        callbacks = options.pop("callbacks")
        checkpoint = read(tmp_path / "checkpoints/last.ckpt") if resume else None
        data = make_data(start=checkpoint["training"]["samples"] if checkpoint else 0)
        console = RunConsole(log=tmp_path / "log.txt", max_steps=8, data=data, is_main=False)
        step_end = make_step_end(console, callbacks=callbacks, checkpoint=checkpoint)
        trainer = make_trainer([])
        trainer.callbacks = [*callbacks.values(), step_end]
        trainer.fit(make_module(max_steps=8, **options), datamodule=data)
        return step_end

    return train


def test_they_are_called_before_a_step_is_validated_and_saved(train: Train, tmp_path: Path) -> None:
    mine = Counter()
    train(callbacks={"mine": mine}, validate_every=4)
    assert mine.calls == [
        ("start", 0),
        *[("step", step) for step in (1, 2, 3, 4)],
        ("validation", 4),
        *[("step", step) for step in (5, 6, 7, 8)],
        ("validation", 8),
    ]
    assert mine.psnr == [pytest.approx(value) for value in mine.psnr if value > 0]
    saved = read(tmp_path / "checkpoints/step_00000004.ckpt")["training"]["callbacks"]
    assert saved == {"mine": {"steps": 4, "state": None}}  # with the step of the checkpoint


@pytest.mark.parametrize("batch", [5, 6])
def test_they_may_end_a_run_which_then_ends_with_a_checkpoint(
    batch: int, train: Train, tmp_path: Path
) -> None:
    # Of two batches a step: asked for within step 3, or at its end.
    mine = Counter(stop_at_batch=batch)
    step_end = train(callbacks={"mine": mine}, accumulate=2, checkpoint_every=100)
    assert step_end.stopping.reason == "callback"
    assert read(tmp_path / "checkpoints/last.ckpt")["training"]["step"] == 3


def test_a_resumed_run_restores_them_and_ends_as_an_uninterrupted_one(
    train: Train, tmp_path: Path
) -> None:
    train(callbacks={"mine": Counter()}, checkpoint_every=4)
    expected = read(tmp_path / "checkpoints/last.ckpt")["training"]
    train(callbacks={"mine": Counter(stop_at_batch=5)}, checkpoint_every=100)
    resumed = Counter()
    train(resume=True, callbacks={"mine": resumed, "new": Counter()}, checkpoint_every=100)
    assert resumed.calls[:2] == [("start", 5), ("step", 6)]
    assert resumed.steps == 8
    found = read(tmp_path / "checkpoints/last.ckpt")["training"]
    assert found["callbacks"]["mine"] == expected["callbacks"]["mine"]
    for name, tensor in expected["weights"].items():
        assert torch.equal(found["weights"][name], tensor), name


def test_a_state_that_is_not_plain_data_is_refused_before_the_first_step(train: Train) -> None:
    mine = Counter(state=Path())
    with pytest.raises(ConfigError, match=r"callbacks\.mine: its state_dict\(\) must hold tensors"):
        train(callbacks={"mine": mine})
    assert mine.steps == 0


def test_early_stopping_of_lightning_stops_by_our_validation(train: Train) -> None:
    stop = EarlyStopping("val/psnr", mode="max", patience=1, min_delta=1e9)
    stop._check_on_train_epoch_end = False
    step_end = train(callbacks={"stop": stop}, validate_every=2)
    assert step_end.stopping.reason == "callback"
    assert stop.stopped_epoch == 0
    assert step_end.console.bar is None


@pytest.mark.slow
def test_a_command_line_names_a_callback_and_a_logger_by_their_classes(
    vqtrain: Callable, tiny: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch import Callback\n"
        "class Mine(Callback):\n"
        "    def __init__(self, every):\n"
        "        self.every, self.count = every, 0\n"
        "    def on_train_batch_end(self, trainer, module, *arguments):\n"
        "        if module.step % self.every == 0:\n"
        "            self.count += 1\n"
        "            self.log('mine', float(self.count))\n"
        "            text = f'{module.step} {self.count} {type(trainer.logger).__name__}\\n'\n"
        "            Path('mine.txt').open('a').write(text)\n"
        "    def state_dict(self):\n"
        "        return {'count': self.count}\n"
        "    def load_state_dict(self, state):\n"
        "        self.count = state['count']\n"
    )
    words = ["callbacks.mine.kind=mine:Mine", "callbacks.mine.every=2"]
    stop = "callbacks.stop.kind=lightning.pytorch.callbacks:EarlyStopping"
    stops = [stop, "callbacks.stop.monitor=val/psnr", "callbacks.stop.min_delta=1000"]
    early = [*stops, "callbacks.stop.patience=1", "trainer.max_steps=6"]
    kind = "logger.kind=lightning.pytorch.loggers:CSVLogger"
    done = vqtrain("train", *tiny, *words, *early, kind, "run_dir=run")
    assert done.returncode == 0, done.stderr
    # The first PSNR is the best by definition; the second is not 1000 dB better.
    assert "stopped by a callback at step 4" in done.stdout
    assert (tmp_path / "mine.txt").read_text() == "2 1 CSVLogger\n4 2 CSVLogger\n"
    assert list((tmp_path / "run/lightning_logs/version_0").glob("metrics.csv"))
    done = vqtrain("train", "resume=run", "~callbacks.stop")
    assert done.returncode == 0, done.stderr
    assert "warning: callbacks.stop" in done.stdout
    assert (tmp_path / "mine.txt").read_text().endswith("6 3 CSVLogger\n")
    done = vqtrain("train", *tiny, "callbacks.mine.kind=mine:Nothing", "run_dir=other")
    assert done.returncode == 2
    assert "callbacks.mine.kind: cannot import" in done.stderr
    assert not (tmp_path / "other").exists()
