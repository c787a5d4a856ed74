"""What ranks tell each other, on two gloo processes, and what one alone does."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vqtrain import distributed

SCRIPT = """
from vqtrain import distributed

mine = torch.arange(6, dtype=torch.float64).reshape(2, 3).T * (rank + 1)  # not contiguous
kept = mine.clone()
total = distributed.all_reduce_sum(mine)
counts = torch.tensor([2**40, rank])
summed = distributed.all_reduce_sum(counts)
grown = distributed.all_reduce_sum(torch.ones(2, requires_grad=True))
flags = [torch.tensor(flag) for flag in (True, rank == 0, rank == 1, False)]
answers = [distributed.all_true(flag) for flag in flags]
network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)).double()
for number, parameter in enumerate(network.parameters()):  # of 3 rows, 3, 1 row and 1
    parameter.data.copy_(torch.arange(parameter.numel()).view_as(parameter) + 10 * number)
distributed.shard(network, [network[0]], whole=[network[1].bias])
weight, bias, last, whole_bias = network.parameters()
network(torch.full((1, 2), rank + 1.0, dtype=torch.float64)).sum().backward()
gradient, apart = distributed.whole(weight.grad), whole_bias.grad.clone()
whole_bias.grad += rank
distributed.average_gradients(network.parameters())
norm = distributed.gradient_norm(network.parameters())
state = distributed.joined(distributed.part_of(weight) * 2, like=weight)
other = torch.arange(6, dtype=torch.float64).view(3, 2) ** 2
split = {
    "parts": [list(distributed.part_of(each).shape) for each in network.parameters()],
    "first": distributed.part_of(weight).tolist(),
    "whole": distributed.whole(weight),
    "joined": distributed.whole(state),
    "split": distributed.part_of(distributed.split(other, like=weight)).tolist(),
    "not split": distributed.split(other, like=other) is other,
    "gradient": gradient,
    "averaged": [apart.item(), whole_bias.grad.item()],
    "norm": norm,
}
if rank == 1:
    distributed.part_of(weight.grad).fill_(float("nan"))
split["nan"] = distributed.gradient_norm(network.parameters())
torch.save(
    {
        "split": split,
        "is_running": distributed.is_running(),
        "rank": distributed.rank(),
        "world_size": distributed.world_size(),
        "total": total,
        "inputs are left": torch.equal(mine, kept) and counts.tolist() == [2**40, rank],
        "summed": summed,
        "requires_grad": grown.requires_grad,
        "answers": answers,
        "flags": [bool(flag) for flag in flags],
        "gathered": distributed.all_gather(torch.tensor([[10.0 * rank], [10.0 * rank + 1]])),
    },
    f"{folder}/{rank}.pt",
)
"""


@pytest.mark.ddp
def test_two_ranks_agree(run_ranks: Callable[[str, int], Path]) -> None:
    folder = run_ranks(SCRIPT, 2)
    for rank in range(2):
        found = torch.load(folder / f"{rank}.pt", weights_only=True)
        assert (found["is_running"], found["rank"], found["world_size"]) == (True, rank, 2)
        # 1 x + 2 x = 3 x, with x[i, j] = i + 3 j.
        expected = torch.tensor([[0.0, 9.0], [3.0, 12.0], [6.0, 15.0]], dtype=torch.float64)
        assert torch.equal(found["total"], expected)
        assert found["inputs are left"]
        assert found["summed"].tolist() == [2**41, 1]
        assert not found["requires_grad"]
        assert found["answers"] == [True, False, False, False]
        assert found["flags"] == [True, rank == 0, rank == 1, False]
        assert found["gathered"].tolist() == [[0.0], [1.0], [10.0], [11.0]]
        check_split(rank, **found["split"])


def check_split(rank: int, **found: Any) -> None:
    """Check what a rank has of the weights [[0, 1], [2, 3], [4, 5]] and [[20, 21, 22]]."""
    assert found["parts"] == [[[2, 2], [2], [1, 3], [1]], [[1, 2], [1], [0, 3], [1]]][rank]
    assert found["first"] == [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0]]][rank]
    assert found["whole"].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert found["joined"].tolist() == [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]
    assert found["split"] == [[[0.0, 1.0], [4.0, 9.0]], [[16.0, 25.0]]][rank]
    assert found["not split"]
    # Inputs of 1 and 2 give on average 1.5 times the last weights.
    assert found["gradient"].tolist() == [[30.0, 30.0], [31.5, 31.5], [33.0, 33.0]]
    assert found["averaged"] == [1.0, 1.5]
    # Biases get 20, 21, 22; the last weight 1.5 times 1, 5 and 9, and 10, 11 and 12.
    last = [1.5 * 1 + 10, 1.5 * 5 + 11, 1.5 * 9 + 12]
    all_of_them = torch.tensor([30, 30, 31.5, 31.5, 33, 33, 20, 21, 22, *last, 1.5]).double()
    torch.testing.assert_close(found["norm"], all_of_them.norm())
    assert found["nan"].isnan()


@pytest.mark.parametrize("is_told", [True, False])
def test_a_process_that_waits_says_for_whom(
    is_told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distributed, "LONG_S", 0.01)
    monkeypatch.setenv("MASTER_ADDR", "node7")
    monkeypatch.setenv("MASTER_PORT", "12345")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    with distributed.waiting_is_told(is_told=is_told):
        time.sleep(0.1)
    said = capsys.readouterr().err
    assert said.count("\n") == is_told
    if is_told:
        assert "waiting for the other processes of this run at node7:12345" in said
        assert "start it with srun" in said


def test_one_process_alone_is_a_world_of_one() -> None:
    assert distributed.places(2, samples=3) == range(6, 9)
    assert (distributed.is_running(), distributed.rank(), distributed.world_size()) == (False, 0, 1)
    values = torch.randn(3, 2)
    assert torch.equal(distributed.all_reduce_sum(values), values)
    assert torch.equal(distributed.all_gather(values), values)
    assert distributed.all_true(torch.tensor(True)) is True
    assert distributed.all_true(torch.tensor(False)) is False
