"""EMA against numbers worked out by hand; restarts that last."""

import pytest
import torch

from vqtrain.codebooks.ema import EMA
from vqtrain.errors import ConfigError


def make(**changes: object) -> EMA:
    arguments: dict[str, object] = {
        "size": 2,
        "dim": 1,
        "decay": 0.5,
        "commitment_weight": 0.25,
        "l2_normalize": False,
        "gradient": "straight_through",
        "kmeans_iterations": 0,
        "restart_below": 0.0,
        "sampling_temperature": 0.0,
    }
    codebook = EMA(**{**arguments, **changes}).double()  # type: ignore[arg-type]  # plain data
    if codebook.vectors.shape == (2, 1):
        codebook.vectors.copy_(torch.tensor([[0.0], [10.0]]))
        codebook.average_sums.copy_(codebook.vectors)
    return codebook.train()


def test_one_update_by_hand() -> None:
    codebook = make()
    # 1, 2 and 3 go to code 0; 8 goes to code 1.
    codebook(torch.tensor([[[1.0, 2.0, 3.0, 8.0]]], dtype=torch.float64))
    codebook.update(0)
    # Counts: .5*1 + .5*3 = 2 and .5*1 + .5*1 = 1. Sums: .5*0 + .5*6 = 3 and .5*10 + .5*8 = 9.
    torch.testing.assert_close(codebook.average_counts.tolist(), [2.0, 1.0])
    torch.testing.assert_close(codebook.average_sums.flatten().tolist(), [3.0, 9.0])
    # Codes: 3/2 and 9/1, but for the smoothing of 1e-5.
    torch.testing.assert_close(codebook.vectors.flatten().tolist(), [1.5, 9.0], rtol=0, atol=1e-4)


def test_batches_of_a_step_count_as_one_batch() -> None:
    z = torch.randn(8, 1, 4, dtype=torch.float64)
    joined, split = make(), make()
    joined(z)
    for part in z.split(2):
        split(part)
    for codebook in (joined, split):
        torch.manual_seed(0)
        codebook.update(0)
    torch.testing.assert_close(split.vectors, joined.vectors, rtol=1e-12, atol=1e-12)


def test_a_restarted_code_survives_the_next_step() -> None:
    codebook = make(size=2, restart_below=0.2)
    z = torch.tensor([[[-1.0, 0.0, 1.0, -1.0, 0.5, 1.0]]], dtype=torch.float64)
    for step in range(4):  # code 1, at 10, never wins: its count halves each step
        codebook(z)
        torch.manual_seed(step)
        codebook.update(step)
    restarted = codebook.vectors[1].item()
    assert min(abs(restarted - value) for value in z.flatten().tolist()) < 1.1
    assert codebook(z).token_ids.unique().tolist() == [0, 1]
    codebook.update(4)
    assert abs(codebook.vectors[1].item()) < 2  # not thrown back towards 10
    assert codebook.eval()(z).token_ids.unique().tolist() == [0, 1]


def test_a_restart_resets_averages_with_the_code() -> None:
    codebook = make(restart_below=0.9, decay=0.0)
    codebook(torch.zeros(1, 1, 4, dtype=torch.float64))
    codebook.update(0)
    # Counts of the step are 4 and 0, their mean 2; code 1 restarts on the only vector, 0.
    assert codebook.average_counts.tolist() == [4.0, 2.0]
    assert codebook.average_sums.flatten().tolist() == [0.0, 0.0]


def test_without_restarts_a_code_that_never_wins_stays() -> None:
    codebook = make()
    for step in range(5):
        codebook(torch.zeros(1, 1, 4, dtype=torch.float64))
        codebook.update(step)
    assert codebook.vectors[1].item() > 9


def test_a_mixture_with_as_many_clusters_as_codes_uses_them_all() -> None:
    centers = 10 * torch.randn(32, 8)
    codebook = make(size=32, dim=8, decay=0.9, restart_below=0.1).float()
    counts = torch.zeros(32)
    for step in range(200):
        z = centers[torch.randint(32, (256,))] + 0.1 * torch.randn(256, 8)
        grid = z.T[None]
        if step == 0:
            codebook.initialize(grid)
        ids = codebook(grid).token_ids
        codebook.update(step)
        if step >= 190:
            counts += torch.bincount(ids.flatten(), minlength=32)
    assert (counts > 0).sum() >= 31


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"decay": 1.0}, "1.0"),
        ({"commitment_weight": -1.0}, "-1.0"),
        ({"restart_below": 1.0}, "1.0"),
        ({"gradient": "rotate"}, "one of straight_through, rotation, got 'rotate'"),
        ({"kmeans_iterations": -1}, "-1"),
        ({"sampling_temperature": -0.5}, "-0.5"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)
