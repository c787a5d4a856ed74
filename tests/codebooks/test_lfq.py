"""LFQ against values worked out by hand."""

import math

import pytest
import torch

from vqtrain.codebooks.lfq import LFQ
from vqtrain.errors import ConfigError


def make(**changes: object) -> LFQ:
    arguments: dict[str, object] = {
        "size": 4,
        "commitment_weight": 0.25,
        "entropy_weight": 0.1,
        "diversity": 1.0,
        "temperature": 1.0,
        "group_bits": 9,
    }
    return LFQ(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data


def test_ids_and_commitment_by_hand() -> None:
    z = torch.tensor([[[0.5, -1.0], [-0.5, 0.0]]])  # the vectors (0.5, -0.5) and (-1, 0)
    quantized = make(entropy_weight=0.0)(z)
    assert quantized.token_ids.tolist() == [[[1, 0]]]  # zero is negative
    assert quantized.z_q.tolist() == [[[1.0, -1.0], [-1.0, -1.0]]]
    # Squared differences .25, .25, 0, 1, their mean .375, times .25.
    torch.testing.assert_close(quantized.loss, torch.tensor(0.375 * 0.25))


def test_the_entropy_loss_by_hand() -> None:
    # Of the vector (0, 0) every bit is a coin; of (9, 9) and (-9, -9) all are sure.
    z = torch.tensor([[[0.0], [0.0]]])
    codebook = make(commitment_weight=0.0, entropy_weight=1.0, diversity=0.5)
    torch.testing.assert_close(codebook(z).loss, torch.tensor(math.log(4) * (1 - 0.5)))
    z = torch.tensor([[[9.0, -9.0], [9.0, -9.0]]])
    # The mean has two codes, half each.
    torch.testing.assert_close(codebook(z).loss, torch.tensor(-0.5 * math.log(2)))
    assert codebook.eval()(z).loss == 0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": 1000}, "nearest are 512 and 1024"),
        ({"size": 1}, r"from 2 to 2\^63, got 1"),
        ({"size": 2**64}, r"from 2 to 2\^63, got"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"group_bits": 21}, "group_bits must be at least 1 and at most 20, got 21"),
        ({"entropy_weight": -1.0}, "entropy_weight must be at least 0"),
        ({"diversity": -1.0}, "diversity must be at least 0"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)
