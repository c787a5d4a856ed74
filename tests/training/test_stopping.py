"""When a run ends, and for which reason."""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

import pytest
from lightning.pytorch import Trainer

from vqtrain.errors import Interrupted
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.stopping import MAX_SKIPPED_IN_ROW, StopPolicy

MakeModule = Callable[..., TokenizerTraining]
MakeStopping = Callable[[float | None], StopPolicy]


@pytest.fixture
def make_stopping(
    make_data: Callable[[], TrainingData], make_bad_samples: Callable[[TrainingData], BadSamples]
) -> MakeStopping:
    """Make what stops a run, over data of which nothing is bad."""

    def make(max_time_s: float | None) -> StopPolicy:
        return StopPolicy(max_time_s=max_time_s, bad_samples=make_bad_samples(make_data()))

    return make


def test_the_first_signal_waits_for_the_step_and_the_second_does_not(
    make_stopping: MakeStopping,
) -> None:
    stopping = make_stopping(None)
    stopping.began = 0.0
    stopping.receive(signal.SIGTERM, None)
    with pytest.raises(Interrupted) as raised:
        stopping.receive(signal.SIGINT, None)
    assert raised.value.signal_number == signal.SIGINT


@pytest.mark.parametrize(
    ("step", "skipped_in_row", "bad", "signal_number", "max_time_s", "reason"),
    [
        (4, MAX_SKIPPED_IN_ROW, True, signal.SIGINT, 0.0, "finished"),
        (3, MAX_SKIPPED_IN_ROW, True, signal.SIGINT, 0.0, "nonfinite"),
        (3, MAX_SKIPPED_IN_ROW - 1, True, signal.SIGINT, 0.0, "data"),
        (3, 0, False, signal.SIGINT, 0.0, "signal"),
        (3, 0, False, None, 0.0, "time"),
        (3, 0, False, None, 1e9, None),
        (3, 0, False, None, None, None),
    ],
    ids=["finished", "nonfinite", "data", "signal", "time", "in-time", "no-limit"],
)
def test_the_reason_that_comes_first_counts(
    step: int,
    skipped_in_row: int,
    bad: bool,
    signal_number: int | None,
    max_time_s: float | None,
    reason: str | None,
    make_module: MakeModule,
    make_stopping: MakeStopping,
) -> None:
    module = make_module(max_steps=4)
    module.configure_optimizers()
    module.step, module.optim.skipped_in_row = step, skipped_in_row
    stopping = make_stopping(max_time_s)
    stopping.bad_samples.too_many = bad
    stopping.began = time.monotonic()
    if signal_number is not None:
        stopping.receive(signal_number, None)
    assert stopping.decide(module) is (reason is not None)
    assert stopping.reason == reason
    assert stopping.signal_number == signal_number


def test_after_the_last_step_a_signal_does_not_wait(make_stopping: MakeStopping) -> None:
    stopping = make_stopping(None)
    stopping.began = 0.0
    stopping.end()
    with pytest.raises(Interrupted):
        stopping.receive(signal.SIGINT, None)


def test_before_the_first_step_there_is_nothing_to_wait_for(make_stopping: MakeStopping) -> None:
    with pytest.raises(Interrupted):
        make_stopping(None).receive(signal.SIGTERM, None)


def test_the_time_counts_from_the_first_step(
    make_module: MakeModule,
    make_stopping: MakeStopping,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = make_module(max_steps=4)
    module.configure_optimizers()
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    stopping = make_stopping(10.0)
    monkeypatch.setattr(time, "monotonic", lambda: 200.0)  # indexing the data took this long
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "signal", lambda *_: None)
        stopping.start()
    for now, reason in [(209.9, None), (210.0, "time")]:
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        stopping.decide(module)
        assert stopping.reason == reason


def test_a_step_ends_once_however_many_batches_it_has(
    make_module: MakeModule, fit: Callable[..., None]
) -> None:
    ends: list[int] = []
    fit(make_module(accumulate=3, max_steps=4), lambda _, module: ends.append(module.step))
    assert ends == [1, 2, 3, 4]


def test_a_signal_ends_the_run_at_the_next_step_and_is_given_back_after_it(
    make_module: MakeModule, fit: Callable[..., None]
) -> None:
    missed: list[int] = []
    ends: list[int] = []

    def end(trainer: Trainer, module: TokenizerTraining) -> None:
        del trainer
        ends.append(module.step)
        if module.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def own(number: int, frame: FrameType | None) -> None:
        del frame
        missed.append(number)

    before = signal.signal(signal.SIGTERM, own)
    try:
        # The policy has decided already when the signal comes, so the step after it is the last.
        fit(make_module(max_steps=5), end)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ends == [1, 2, 3]
    assert missed == []
