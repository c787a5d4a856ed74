"""Bits, signs and ids by hand, up to the last bit of int64."""

import torch

from vqtrain.codebooks.parts.bits import MAX_BITS, to_ids, to_signs


def test_the_first_channel_is_the_lowest_bit_and_zero_is_negative() -> None:
    z = torch.tensor([[0.1, -0.2, 3.0, 0.0], [-1.0, 2.0, -3.0, 4.0]])
    assert to_ids(z).tolist() == [0b0101, 0b1010]
    assert to_signs(torch.tensor([0b0101]), 4).tolist() == [[1.0, -1.0, 1.0, -1.0]]


def test_all_bits_of_an_id_survive() -> None:
    ids = torch.tensor([0, 1, 2**62, 2**62 + 1, 2**63 - 1])
    assert torch.equal(to_ids(to_signs(ids, MAX_BITS)), ids)


def test_signs_have_the_dtype_that_is_asked_for() -> None:
    assert to_signs(torch.tensor([1]), 2, torch.float64).dtype == torch.float64
