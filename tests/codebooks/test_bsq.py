"""BSQ against values worked out by hand."""

import math

import pytest
import torch

from vqtrain.codebooks.bsq import BSQ
from vqtrain.errors import ConfigError


def make(**changes: object) -> BSQ:
    arguments: dict[str, object] = {
        "size": 4,
        "commitment_weight": 1.0,
        "entropy_weight": 0.0,
        "diversity": 1.0,
        "temperature": 1.0,
        "group_bits": 9,
    }
    return BSQ(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data


def test_ids_corners_and_commitment_by_hand() -> None:
    z = torch.tensor([[[3.0], [-4.0]]])  # (0.6, -0.8) on the sphere
    quantized = make()(z)
    half = math.sqrt(0.5)
    assert quantized.token_ids.tolist() == [[[1]]]
    torch.testing.assert_close(quantized.z_q, torch.tensor([[[half], [-half]]]))
    expected = ((half - 0.6) ** 2 + (half - 0.8) ** 2) / 2
    torch.testing.assert_close(quantized.loss, torch.tensor(expected))


def test_codes_and_vectors_are_on_the_unit_sphere() -> None:
    codebook = make(size=64)
    codes = codebook.decode(torch.arange(64)[None, None])
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(1, 64))
    # The length of a latent counts for nothing.
    z = torch.randn(1, 6, 5)
    for name in ("z_q", "token_ids", "loss"):
        near, far = (getattr(codebook(scale * z), name) for scale in (1.0, 100.0))
        torch.testing.assert_close(near, far)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": 48}, "nearest are 32 and 64"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"group_bits": 0}, "group_bits must be at least 1 and at most 20, got 0"),
        ({"commitment_weight": -1.0}, "commitment_weight must be at least 0"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)
