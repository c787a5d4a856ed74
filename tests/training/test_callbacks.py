"""When a run ends, and for which reason."""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

import pytest
from lightning.pytorch import Trainer

from vqtrain.errors import Interrupted
from vqtrain.training.callbacks import MAX_SKIPPED_IN_ROW, StepCallback, Stopping
from vqtrain.training.module import TokenizerTraining

MakeModule = Callable[..., TokenizerTraining]
MakeTrainer = Callable[..., Trainer]


def test_the_first_signal_waits_for_the_step_and_the_second_does_not() -> None:
    stopping = Stopping(max_time_s=None)
    stopping.began = 0.0
    stopping.receive(signal.SIGTERM, None)
    with pytest.raises(Interrupted) as raised:
        stopping.receive(signal.SIGINT, None)
    assert raised.value.signal_number == signal.SIGINT


@pytest.mark.parametrize(
    ("step", "skipped_in_row", "signal_number", "max_time_s", "reason"),
    [
        (4, MAX_SKIPPED_IN_ROW, signal.SIGINT, 0.0, "finished"),
        (3, MAX_SKIPPED_IN_ROW, signal.SIGINT, 0.0, "nonfinite"),
        (3, MAX_SKIPPED_IN_ROW - 1, signal.SIGINT, 0.0, "signal"),
        (3, 0, None, 0.0, "time"),
        (3, 0, None, 1e9, None),
        (3, 0, None, None, None),
    ],
    ids=["finished", "nonfinite", "signal", "time", "in-time", "no-limit"],
)
def test_the_reason_that_comes_first_counts(
    step: int,
    skipped_in_row: int,
    signal_number: int | None,
    max_time_s: float | None,
    reason: str | None,
    make_module: MakeModule,
    make_trainer: MakeTrainer,
) -> None:
    module, trainer = make_module(max_steps=4), make_trainer([])
    module.step, module.skipped_in_row = step, skipped_in_row
    stopping = Stopping(max_time_s=max_time_s)
    stopping.began = time.monotonic()
    if signal_number is not None:
        stopping.receive(signal_number, None)
    stopping.on_step_end(trainer, module)
    assert stopping.reason == reason
    assert stopping.signal_number == signal_number
    assert trainer.should_stop is (reason is not None)


def test_before_the_first_step_there_is_nothing_to_wait_for() -> None:
    with pytest.raises(Interrupted):
        Stopping(max_time_s=None).receive(signal.SIGTERM, None)


def test_the_time_counts_from_the_first_step(
    make_module: MakeModule, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, trainer = make_module(max_steps=4), make_trainer([])
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    stopping = Stopping(max_time_s=10.0)
    monkeypatch.setattr(time, "monotonic", lambda: 200.0)  # indexing the data took this long
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", lambda *_: None)
        stopping.on_train_start(trainer, module)
    for now, reason in [(209.9, None), (210.0, "time")]:
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        stopping.on_step_end(trainer, module)
        assert stopping.reason == reason


class Ends(StepCallback):
    """Notes the steps whose end it was told."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_step_end(self, trainer: Trainer, module: TokenizerTraining) -> None:
        """Note it."""
        del trainer
        self.steps.append(module.step)


def test_a_step_ends_once_however_many_batches_it_has(
    make_module: MakeModule, fit: Callable[..., None]
) -> None:
    fit(make_module(accumulate=3, max_steps=4), ends := Ends())
    assert ends.steps == [1, 2, 3, 4]


class Signals(StepCallback):
    """Sends this process a signal at the end of step 2."""

    def on_step_end(self, trainer: Trainer, module: TokenizerTraining) -> None:
        """Send it."""
        del trainer
        if module.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_run_at_the_next_step_and_is_given_back_after_it(
    make_module: MakeModule, fit: Callable[..., None]
) -> None:
    missed: list[int] = []

    def own(number: int, frame: FrameType | None) -> None:
        del frame
        missed.append(number)

    before = signal.signal(signal.SIGTERM, own)
    try:
        # Stopping has looked already when the signal comes, so the step after it is the last.
        fit(make_module(max_steps=5), ends := Ends(), Signals())
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ends.steps == [1, 2, 3]
    assert missed == []
