"""Training with a plain Lightning Trainer, against ``vqtrain train``."""

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger

from vqtrain import Tokenizer
from vqtrain.app.parts.python import Training, build_training
from vqtrain.cli import main
from vqtrain.errors import CheckpointError, ConfigError

GAN = [
    "discriminator=patchgan",
    "discriminator.num_layers=1",
    "discriminator.norm=group",
    "discriminator.channels=8",
    "loss.adversarial.start_step=1",
    "loss.adversarial.ramp_steps=0",
    "trainer.accumulate=2",
    "trainer.ema_decay=0.9",
]
# Lightning warns of much that does not apply here.
pytestmark = pytest.mark.filterwarnings("ignore")
MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    """Make a Trainer as a user would, but for what it prints."""

    def make(**options: object) -> Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        settings = {"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path / "plain"}
        return Trainer(**{**settings, **quiet, **options})  # type: ignore[arg-type]  # a user's

    return make


@pytest.fixture
def training(tiny: list[str], tmp_path: Path) -> Training:
    return build_training(*tiny, folder=tmp_path)


def test_a_plain_trainer_ends_with_the_weights_and_metrics_of_the_command(
    tiny: list[str], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    assert main(["train", *tiny, *GAN, f"run_dir={tmp_path}/run"]) == 0
    training = build_training(*tiny, *GAN, folder=tmp_path)
    logger = CSVLogger(tmp_path / "csv")
    # Lightning counts batches, of which there are two a step.
    trainer = make_trainer(logger=logger, log_every_n_steps=1, val_check_interval=4)
    trainer.fit(training.module, training.data)
    assert training.module.step == trainer.global_step == 4
    training.module.save_pretrained(tmp_path / "mine")
    expected = Tokenizer.from_pretrained(tmp_path / "run").state_dict()
    found = Tokenizer.from_pretrained(tmp_path / "mine").state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last.pop("step") == 4
    assert last.pop("train/epoch") > 0  # Lightning has an epoch of its own
    assert last.keys() == trainer.callback_metrics.keys()
    for name, value in last.items():
        assert trainer.callback_metrics[name].item() == pytest.approx(value, rel=1e-6), name
    assert sorted(file.name for file in (tmp_path / "images").iterdir()) == [
        "step_00000002.png",
        "step_00000004.png",
    ]


def test_callbacks_and_limits_of_lightning_work(
    training: Training, make_trainer: MakeTrainer
) -> None:
    stop = EarlyStopping("val/psnr", mode="max", patience=1, min_delta=1e9)
    options = {"val_check_interval": 1, "check_val_every_n_epoch": None}
    trainer = make_trainer(max_steps=3, callbacks=[stop], **options)
    trainer.fit(training.module, training.data)
    assert training.module.step == 2  # the first validation sets the best, the second is no better


def test_the_steps_of_lightning_end_a_run(
    training: Training, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    rates = LearningRateMonitor()
    trainer = make_trainer(max_steps=3, callbacks=[rates], logger=CSVLogger(tmp_path))
    trainer.fit(training.module, training.data)
    assert training.module.step == 3
    with pytest.raises(CheckpointError, match="a checkpoint of Lightning's cannot be resumed"):
        make_trainer().fit(
            training.module, training.data, ckpt_path=trainer.checkpoint_callback.best_model_path
        )


def test_a_notebook_may_train_in_another_thread(
    training: Training, make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(
        target=make_trainer(logger=False).fit, args=(training.module, training.data)
    )
    thread.start()
    thread.join()
    assert training.module.step == 4
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16-mixed"}, "its precision is bf16-mixed, but trainer.precision=32-true"),
        ({"precision": "64-true"}, "its precision is 64-true"),
    ],
)
def test_a_trainer_that_does_not_fit_the_settings_is_refused(
    options: dict[str, object], message: str, training: Training, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_trainer(logger=False, **options).fit(training.module, training.data)


def test_data_without_first_batches_is_refused(
    training: Training, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(ConfigError, match="fit it on a TrainingData"):
        make_trainer(logger=False).fit(training.module, training.data.train_dataloader())


def test_a_mistake_in_the_words_is_one_error(tiny: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'codebook\.size'"):
        build_training(*tiny, "codebook.sizes=3")
    with pytest.raises(ConfigError, match=r"^sample_size=\[18,16\]: a sample of 18 x 16 does not"):
        build_training(*tiny, sample_size=(18, 16))
