"""The estimate of a step's memory, against what torch takes for a real step."""

from collections.abc import Callable
from itertools import accumulate

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from vqtrain.training import memory
from vqtrain.training.data_module import TrainingData
from vqtrain.training.launch import build_trainer, quiet_libraries
from vqtrain.training.memory import StepMemory, look_at_memory, measure_step, readable
from vqtrain.training.module import TokenizerTraining

SIZE = (3, 64, 64)


def measured(module: TokenizerTraining) -> StepMemory:
    quiet_libraries()
    return measure_step(module, build_trainer(module.settings), SIZE)


def test_estimate_is_what_a_step_takes(make_module: Callable[..., TokenizerTraining]) -> None:
    def make() -> TokenizerTraining:
        return make_module(adversarial={}, width=32)

    module = make()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = torch.get_rng_state()
    found = measured(module)
    # The module is as it was.
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())

    weights = [*module.parameters(), *module.buffers()]
    trained = sum(p.nbytes for p in module.parameters())
    average = sum(t.nbytes for t in module.tokenizer.state_dict().values())
    assert found.constant == sum(t.nbytes for t in weights) + 2 * trained + average
    peaks = {}
    for count in (2, 6):
        module = make()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            samples = torch.zeros(count, *SIZE).contiguous(memory_format=torch.channels_last)
            module.begin_step()
            module.differentiate(samples, [""] * count, Tensor.backward, torch.ones(()))
        events = profiler.profiler.kineto_results.events()
        taken = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        peaks[count] = max(accumulate(nbytes for _, nbytes in taken))
        assert found.at(count) - found.constant == pytest.approx(peaks[count], rel=0.1)
    assert peaks[6] > 2 * peaks[2]


def test_settings_change_the_estimate(make_module: Callable[..., TokenizerTraining]) -> None:
    def peak(**settings: object) -> int:
        return measured(make_module(width=32, **settings)).at(8)

    plain, adversarial = peak(), peak(adversarial={})
    assert peak(ema_decay=0.0) < plain < adversarial
    # A batch before the last one leaves its gradients to it.
    assert adversarial < peak(adversarial={}, accumulate=7)
    assert 0.4 * plain < peak(precision="bf16-mixed") < plain
    assert peak(precision="64-true") > 1.8 * plain
    assert plain < peak(devices=2)  # the buffers by which gradients are reduced


def test_largest_batch_is_the_last_that_fits(
    make_module: Callable[..., TokenizerTraining],
    make_data: Callable[..., TrainingData],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand = StepMemory(constant=100, moments=frozenset({(0, 10), (50, 1), (20, 0)}))
    assert [hand.at(batch) for batch in (1, 5, 6)] == [151, 155, 160]
    # 100 + 10 b and 150 + b must be at most that many bytes; 100 + 50 are more than 149.
    assert [hand.largest_batch(free) for free in (155, 160, 175, 149)] == [5, 6, 7, 0]

    module, data = make_module(), make_data(batch_size=4).settings
    trainer = build_trainer(module.settings)
    step = measure_step(module, trainer, (3, 16, 16))
    weights = sum(parameter.nbytes for parameter in module.parameters())

    def told(free: int | None) -> tuple[str, str | None]:
        # The weights are in memory already, so they need not be free.
        left = None if free is None else free - weights
        monkeypatch.setattr(memory, "free_memory", lambda _: left)
        outlook = look_at_memory(module, trainer, data)
        assert outlook is not None
        return str(outlook), outlook.remedy

    assert told(10**9)[1] is None
    text, remedy = told(int(1.11 * step.at(3)))
    assert "batches of up to 3 would fit" in text
    assert remedy is not None
    assert "data.batch_size=3 with a larger trainer.accumulate" in remedy
    text, remedy = told(int(step.constant))
    assert "not even batches of 1 would fit" in text
    assert remedy is not None
    assert "accumulate" not in remedy
    assert told(None) == (f"about {readable(step.at(4))}", None)
    # A part that looks at values: nothing is said.
    module.tokenizer.decoder.register_forward_hook(lambda *given: bool(given[2].sum() > 0))
    assert look_at_memory(module, trainer, data) is None
