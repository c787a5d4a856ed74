"""Where the time of a step goes, of networks whose calls take a known time."""

import time

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.profiler import record_function
from torch.utils.checkpoint import checkpoint

from vqtrain.ops.profiling import (
    STEP,
    Call,
    describe,
    describe_operations,
    marked,
    profiler,
    time_by_part,
)

FORWARD_S, BACKWARD_S = 0.02, 0.03


class Sleep(torch.autograd.Function):
    """Takes a known time in each direction."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        """Sleep."""
        del ctx
        time.sleep(FORWARD_S)
        return x.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        """Sleep longer."""
        del ctx
        time.sleep(BACKWARD_S)
        return gradient


class Sleeper(nn.Linear):
    """A layer that sleeps."""

    def forward(self, x: Tensor) -> Tensor:
        """Sleep, then multiply."""
        x = Sleep.apply(x)
        return super().forward(x)


class Pause:
    """Something that is no module."""

    def pause(self) -> None:
        """Sleep."""
        time.sleep(FORWARD_S)


def test_time_goes_to_the_part_that_made_it_forward_and_backward() -> None:
    first, last, pause = Sleeper(2, 2), Sleeper(2, 2), Pause()
    optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], lr=0.1)

    def step() -> None:
        hidden = checkpoint(first, torch.ones(1, 2, requires_grad=True), use_reentrant=False)
        pause.pause()
        time.sleep(FORWARD_S)
        last(hidden).sum().backward()
        optimizer.step()

    step()
    calls = [Call(part="first", owner=first), Call(part="last", owner=last)]
    calls.append(Call(part="pause", owner=pause, method="pause"))
    with marked(calls), profiler() as record:
        began = time.perf_counter()
        for _ in range(2):
            with record_function(STEP):
                step()
        took = (time.perf_counter() - began) / 2
    times = time_by_part(record)
    assert set(times) == {"first", "last", "pause", "optimizer", "other"}
    recomputed = FORWARD_S + BACKWARD_S
    for part, forward, backward in (
        ("first", FORWARD_S, recomputed),
        ("last", FORWARD_S, BACKWARD_S),
        ("pause", FORWARD_S, 0.0),
        ("other", FORWARD_S, 0.0),
    ):
        assert times[part].forward >= forward
        assert times[part].backward >= backward
    # Together they are the whole, so that none has much more than that.
    assert sum(each.total for each in times.values()) == pytest.approx(took, rel=0.05)
    assert times["pause"].backward == 0
    assert times["optimizer"].forward > 0

    table = describe(times)
    assert table[1].split()[0] == "first"
    assert table[-1].split()[0] == "whole"
    assert table[-1].split()[-1] == "100.0%"
    assert "Sleep " in describe_operations(record)[1] + describe_operations(record)[2]


def test_a_compiled_network_is_marked() -> None:
    network = nn.Linear(2, 2)
    network.compile(backend="eager")
    with marked([Call(part="network", owner=network)]), profiler() as record, record_function(STEP):
        network(torch.ones(1, 2)).sum().backward()
    time = time_by_part(record)["network"]
    assert time.forward > 0
    assert time.backward > 0


def test_marks_leave_nothing_behind() -> None:
    layer, pause = nn.Linear(1, 1), Pause()
    before = dict(vars(layer)), dict(vars(pause))
    with marked([Call(part="a", owner=layer), Call(part="b", owner=pause, method="pause")]):
        assert dict(vars(layer)) != before[0]
        assert dict(vars(pause)) != before[1]
    assert (vars(layer), vars(pause)) == before
