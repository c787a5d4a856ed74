"""How codes of a table are chosen and restarted."""

import pytest
import torch

from vqtrain.codebooks.parts.noise import NoiseSource
from vqtrain.codebooks.parts.table import choose, dead_codes


def test_codes_are_drawn_with_the_probabilities_of_their_distances() -> None:
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    z = torch.zeros(20_000, 2)
    ids = choose(z, codes, 0.5, NoiseSource().next_call(4))
    # Squared distances a channel: 0, 0.5, 2; over the temperature: 0, 1, 4.
    expected = torch.tensor([0.0, -1.0, -4.0]).softmax(0)
    shares = torch.bincount(ids, minlength=3) / len(ids)
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.01)


def test_without_noise_the_nearest_code_is_chosen() -> None:
    codes = torch.tensor([[0.0], [1.0]])
    assert choose(torch.tensor([[0.4], [0.6]]), codes, 0.5, None).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("available", "expected"), [(3, [(1, True), (3, True), (0, False)]), (1, [(1, True)])]
)
def test_dead_codes_come_first_and_wait_where_vectors_are_few(
    available: int, expected: list[tuple[int, bool]]
) -> None:
    # The mean is 2.5; below a share of 0.5, so below 1.25, are the second and the last one.
    codes, are_dead = dead_codes(torch.tensor([5.0, 0.0, 4.0, 1.0]), 0.5, available)
    assert list(zip(codes.tolist(), are_dead.tolist(), strict=True)) == expected
