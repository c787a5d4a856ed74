"""Seeds that are a function of what they are given."""

import torch

from vqtrain.ops.seeds import seed_for, seed_torch


def test_parts_do_not_run_together() -> None:
    seeds = {seed_for(1, 23), seed_for(12, 3), seed_for(1, 2, 3), seed_for("1", 2, 4)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_same_parts_give_the_same_draws() -> None:
    seed_torch(5, "step", 7, 0)
    first = torch.rand(3)
    torch.rand(10)
    seed_torch(5, "step", 7, 0)
    assert torch.equal(torch.rand(3), first)
