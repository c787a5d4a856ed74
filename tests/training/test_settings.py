"""What the ``trainer`` and ``metrics`` groups take and refuse."""

from collections.abc import Callable

import pytest
import torch

from vqtrain.errors import ConfigError
from vqtrain.training.settings import TrainerSettings

Make = Callable[..., TrainerSettings]


@pytest.mark.parametrize(
    "key",
    [
        "max_steps",
        "accumulate",
        "log_every",
        "validate_every",
        "checkpoint_every",
        "keep_checkpoints",
        "limit_val",
    ],
)
def test_counts_are_at_least_one(key: str, trainer_settings: Make) -> None:
    assert getattr(trainer_settings(**{key: 1}), key) == 1
    with pytest.raises(ConfigError, match=rf"trainer\.{key} must be at least 1.*got 0"):
        trainer_settings(**{key: 0})


@pytest.mark.parametrize("key", ["limit_val", "clip", "max_time"])
def test_a_limit_may_be_absent(key: str, trainer_settings: Make) -> None:
    assert getattr(trainer_settings(**{key: None}), key) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("clip", 0.0), ("ema_decay", -0.1), ("ema_decay", 1.0)],
)
def test_a_number_out_of_range_is_refused(key: str, value: float, trainer_settings: Make) -> None:
    with pytest.raises(ConfigError, match=rf"trainer\.{key} must be .*got {value}"):
        trainer_settings(**{key: value})


def test_the_average_is_with_the_weights_or_on_the_cpu(trainer_settings: Make) -> None:
    assert trainer_settings(ema_device="cpu").ema_device == "cpu"
    with pytest.raises(ConfigError, match=r"trainer\.ema_device must be .*cpu.*, got 'gpu'"):
        trainer_settings(ema_device="gpu")


@pytest.mark.parametrize(("key", "word"), [("accelerator", "cpus"), ("precision", "bf16")])
def test_an_unknown_word_is_answered_with_the_valid_ones(
    key: str, word: str, trainer_settings: Make
) -> None:
    with pytest.raises(ConfigError, match=rf"trainer\.{key} must be one of .*, .*got '{word}'"):
        trainer_settings(**{key: word})


def test_weights_in_bfloat16_are_for_trained_tokenizers(trainer_settings: Make) -> None:
    with pytest.raises(ConfigError, match="train with bf16-mixed, and give bf16-true to evaluate"):
        trainer_settings(precision="bf16-true")


def test_a_gpu_that_is_not_there_is_refused(
    trainer_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="gpu, but torch finds none here"):
        trainer_settings(accelerator="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert trainer_settings(accelerator="gpu").accelerator == "gpu"


def test_more_processes_than_devices_are_refused(
    trainer_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert trainer_settings(devices=2, num_nodes=3).world_size == 6
    with pytest.raises(ConfigError, match=r"at most 2, got 3: this machine has 2 CPU cores"):
        trainer_settings(devices=3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert trainer_settings(devices=4, accelerator="auto").devices == 4
    with pytest.raises(ConfigError, match=r"at most 4, got 5: this machine has 4 GPUs"):
        trainer_settings(devices=5, accelerator="gpu")
    with pytest.raises(ConfigError, match=r"at least 1, got 0"):
        trainer_settings(num_nodes=0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    # 1 h + 2 min + 3 s = 3600 + 120 + 3.
    [("01:02:03", 3723.0), ("00:00:01", 1.0), ("100:00:00", 360_000.0), (None, None)],
)
def test_a_time_in_seconds(text: str | None, seconds: float | None, trainer_settings: Make) -> None:
    assert trainer_settings(max_time=text).max_time_s == seconds


@pytest.mark.parametrize("text", ["1:60:00", "10:00", "00:00:60", "1h", "-1:00:00", "0:0:1"])
def test_a_time_in_another_form_is_refused(text: str, trainer_settings: Make) -> None:
    with pytest.raises(ConfigError, match=f'"HH:MM:SS" or null, got {text!r}'):
        trainer_settings(max_time=text)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("bf16-mixed", torch.float32), ("64-true", torch.float64)],
)
def test_weights_are_of_full_precision(
    precision: str, dtype: torch.dtype, trainer_settings: Make
) -> None:
    assert trainer_settings(precision=precision).dtype == dtype


@pytest.mark.parametrize(
    ("every", "due"),
    [
        (300, [100, 300, 600, 900]),
        (400, [100, 400, 800]),
        (90, range(90, 1001, 90)),
        (1000, [1000]),
    ],
)
def test_the_first_time_is_early_unless_it_is_for_the_end_alone(
    every: int, due: list[int], trainer_settings: Make
) -> None:
    settings = trainer_settings(max_steps=1000)
    assert [step for step in range(1, 1001) if settings.is_due(every, step)] == list(due)
