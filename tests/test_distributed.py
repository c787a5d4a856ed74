"""What ranks tell each other, on two gloo processes, and what one alone does."""

import time
from collections.abc import Callable
from pathlib import Path

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
torch.save(
    {
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
