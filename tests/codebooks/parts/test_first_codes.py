"""The codes that a codebook starts from."""

import pytest
import torch

from vqtrain.codebooks.parts.first_codes import draw_codes, first_codes


def test_fewer_vectors_than_codes_are_told_apart_by_a_little_noise() -> None:
    z = torch.tensor([[0.0], [10.0]])
    codes = draw_codes(z, 8)
    assert len(codes.unique()) == 8
    assert torch.minimum(codes.abs(), (codes - 10).abs()).max() < 0.5


def test_without_iterations_codes_are_vectors_of_the_data() -> None:
    z = torch.arange(20.0)[:, None]
    codes = first_codes(z, 5, 0)
    assert {value.item() for value in codes} <= {value.item() for value in z}


def test_an_iteration_moves_codes_to_the_means_of_what_they_win() -> None:
    z = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    torch.manual_seed(0)
    start = draw_codes(z, 2).flatten().tolist()
    torch.manual_seed(0)
    moved = sorted(first_codes(z, 2, 1).flatten().tolist())
    won: list[list[float]] = [[], []]
    for value in z.flatten().tolist():
        won[int(abs(value - start[1]) < abs(value - start[0]))].append(value)
    assert moved == pytest.approx(sorted(sum(values) / len(values) for values in won))


def test_each_iteration_brings_codes_nearer_to_the_data() -> None:
    z = torch.randn(200, 3, dtype=torch.float64)
    errors = []
    for iterations in (0, 1, 2, 5):
        torch.manual_seed(0)
        codes = first_codes(z, 16, iterations)
        errors.append(torch.cdist(z, codes).amin(1).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * errors[0]


def test_a_code_that_wins_nothing_stays() -> None:
    z = torch.zeros(3, 2)  # of equal codes only the first one wins
    assert torch.equal(first_codes(z, 2, 3), torch.zeros(2, 2))
