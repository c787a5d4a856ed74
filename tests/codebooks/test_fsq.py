"""FSQ against ids worked out by hand, and the sizes that it can have."""

import math

import pytest
import torch

from vqtrain.codebooks.fsq import FSQ, LEVELS
from vqtrain.errors import ConfigError


def make(size: int | None = None, levels: list[int] | None = None) -> FSQ:
    return FSQ(size=size, levels=levels, eps=1e-3)


def test_odd_levels_by_hand() -> None:
    # Three positions of two channels with 3 and 5 levels; atanh(0.6) = 0.6931, atanh(0.4) = 0.4236.
    z = torch.tensor([[[-9.0, 0.0, 9.0], [9.0, 0.6931, -0.4236]]])
    quantized = make(levels=[3, 5])(z)
    # tanh times half the range: (-1, 2), (0, 1.2), (1, -0.8), rounded (-1, 2), (0, 1), (1, -1).
    # Digits (0, 4), (1, 3), (2, 1), with the basis (1, 3): 0 + 12, 1 + 9, 2 + 3.
    assert quantized.token_ids.tolist() == [[[12, 10, 5]]]
    assert quantized.z_q.tolist() == [[[-1.0, 0.0, 1.0], [1.0, 0.5, -0.5]]]
    assert quantized.loss == 0


def test_even_levels_lack_the_one_at_one_and_have_zero() -> None:
    z = torch.tensor([[[-9.0, 0.0, 9.0]]])
    quantized = make(levels=[4])(z)
    # Digits 0, 2 and 3 of the levels -2, -1, 0, 1, divided by 2.
    assert quantized.token_ids.tolist() == [[[0, 2, 3]]]
    assert quantized.z_q.tolist() == [[[-1.0, 0.0, 0.5]]]
    assert make(levels=[2])(z).z_q.tolist() == [[[-1.0, 0.0, 0.0]]]


def test_the_gradient_is_that_of_tanh() -> None:
    z = torch.tensor([[[0.3]]], requires_grad=True)
    make(levels=[3])(z).z_q.sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, 1.001 * (1 - torch.tanh(z.detach()) ** 2))


@pytest.mark.parametrize("size", LEVELS)
def test_a_size_gives_the_papers_levels(size: int) -> None:
    codebook = make(size=size)
    assert codebook.size == math.prod(LEVELS[size])
    assert codebook.dim == len(LEVELS[size])
    assert abs(codebook.size / size - 1) < 0.07
    # What it reports can be asked for.
    assert make(size=codebook.size).size == codebook.size


@pytest.mark.parametrize(
    ("size", "levels", "word"),
    [
        (512, None, r"nearest are 256 \(240 ids\) and 1024 \(1000 ids\)"),
        (2, None, r"nearest are 16 \(15 ids\);"),
        (10**6, None, r"nearest are 65536 \(64000 ids\);"),
        (None, None, "give size or levels"),
        (1024, [3, 3], "not the product of levels"),
        (None, [3, 1], "numbers of at least 2, got"),
        (None, [], "one or more numbers"),
        (None, [2] * 64, r"more than int64 holds: at most 2\^63"),
    ],
)
def test_impossible_sizes_name_the_nearest_ones(
    size: int | None, levels: list[int] | None, word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        make(size, levels)


@pytest.mark.parametrize("eps", [0.0, -1.0, 0.5])
def test_an_impossible_eps_is_refused(eps: float) -> None:
    with pytest.raises(ConfigError, match="eps must be above 0"):
        FSQ(size=16, levels=None, eps=eps)
