"""The order of a step's end, and what begins and ends with it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from vqtrain.training.console import RunConsole
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.step_end import StepEnd

PARTS = {
    "validation": "measure_if_due",
    "stopping": "decide",
    "record": "write",
    "checkpointing": "save_if_due",
}


@pytest.fixture
def step_end(
    make_step_end: Callable[..., StepEnd],
    make_data: Callable[..., TrainingData],
    tmp_path: Path,
) -> StepEnd:
    """The callback of a run of two steps."""
    return make_step_end(
        RunConsole(log=tmp_path / "log.txt", max_steps=2, data=make_data(), is_main=True)
    )


def test_after_the_update_a_step_is_validated_decided_recorded_and_saved(
    step_end: StepEnd,
    make_module: Callable[..., TokenizerTraining],
    make_trainer: Callable[..., Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[int, str]] = []
    module = make_module(max_steps=2, accumulate=2)
    for part, method in PARTS.items():
        own = getattr(getattr(step_end, part), method)

        def note(*arguments: object, part: str = part, own: Callable = own, **more: object) -> bool:
            calls.append((module.step, part))
            return bool(own(*arguments, **more))

        monkeypatch.setattr(getattr(step_end, part), method, note)
    make_trainer([step_end]).fit(module, datamodule=step_end.console.data)
    assert calls == [(step, part) for step in (1, 2) for part in PARTS]
    assert step_end.stopping.reason == "finished"


@pytest.mark.parametrize("is_new", [True, False])
def test_a_codebook_is_initialized_unless_it_has_weights(
    is_new: bool,
    step_end: StepEnd,
    make_module: Callable[..., TokenizerTraining],
    make_trainer: Callable[..., Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = make_module(max_steps=1)
    module.codebook_is_new = is_new
    calls: list[int] = []
    own = module.initialize_codebook
    monkeypatch.setattr(
        module, "initialize_codebook", lambda batches: calls.append(module.step) or own(batches)
    )
    make_trainer([step_end]).fit(module, datamodule=step_end.console.data)
    assert calls == [0] * is_new
    assert module.average is not None
