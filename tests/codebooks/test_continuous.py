"""Latents as they are."""

import pytest
import torch

from vqtrain.codebooks.continuous import Continuous
from vqtrain.errors import ConfigError


def test_latents_and_their_gradients_pass_on_at_no_loss() -> None:
    z = torch.randn(2, 3, 4, 5, requires_grad=True)
    quantized = Continuous(size=None, dim=3)(z)
    assert torch.equal(quantized.z_q, z)
    assert quantized.loss == 0
    weights = torch.randn(2, 3, 4, 5)
    (quantized.z_q * weights).sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, weights)


def test_it_has_no_ids_and_says_so() -> None:
    codebook = Continuous(size=4096, dim=2)
    assert (codebook.num_codebooks, codebook.size, codebook.in_channels) == (0, 0, 2)
    assert codebook(torch.zeros(2, 2, 3, 3)).token_ids.shape == (2, 0, 3, 3)
    with pytest.raises(ConfigError, match="codebook=continuous is continuous, so there are no"):
        codebook.decode(torch.zeros(1, 0, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("size", "dim", "word"),
    [(None, 0, "dim must be at least 1, got 0"), (0, 1, "size must be at least 1 or null, got 0")],
)
def test_impossible_arguments_are_refused(size: int | None, dim: int, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Continuous(size=size, dim=dim)
