"""Entropies against plain softmaxes over all codes."""

import itertools

import pytest
import torch

from vqtrain.codebooks.parts.entropy import bit_entropies, entropies, entropy_of


def plain(probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    each = torch.special.entr(probabilities).sum(1).mean()
    return each, torch.special.entr(probabilities.mean(0)).sum()


def test_entropies_of_a_softmax() -> None:
    z, keys = torch.randn(20, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    bias = torch.randn(7, dtype=torch.float64)
    found = entropies(z, keys, bias)
    for a, b in zip(found, plain((z @ keys.T + bias).softmax(1)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("group_bits", [4, 9])
def test_bits_in_one_group_are_exact(scale: float, group_bits: int) -> None:
    z = torch.randn(30, 4, dtype=torch.float64, requires_grad=True)
    codes = scale * torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4))).double()
    ours = bit_entropies(z, scale, 0.7, group_bits)
    whole = plain((-torch.cdist(z, codes).square() / 0.7).softmax(1))
    for a, b in zip(ours, whole, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(*(torch.autograd.grad(x, z, retain_graph=True) for x in (a, b)))


def test_groups_of_bits_add_up_to_an_upper_bound() -> None:
    z = torch.randn(30, 5, dtype=torch.float64)
    one, groups = (bit_entropies(z, 1.0, 0.5, bits)[1] for bits in (5, 2))
    parts = [bit_entropies(part, 1.0, 0.5, 5)[1] for part in z.split(2, 1)]
    torch.testing.assert_close(groups, torch.stack(parts).sum())
    assert groups > one


def test_sixty_three_bits_take_no_table_of_all_codes() -> None:
    sure, even = bit_entropies(torch.zeros(3, 63, dtype=torch.float64), 1.0, 1.0, 9)
    expected = 63 * torch.log(torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(sure, expected)
    torch.testing.assert_close(even, expected)


def test_an_entropy_has_a_finite_gradient_where_a_probability_is_zero() -> None:
    probabilities = torch.tensor([0.5, 0.5, 0.0], requires_grad=True)
    entropy_of(probabilities).backward()
    assert probabilities.grad is not None
    assert probabilities.grad.isfinite().all()
