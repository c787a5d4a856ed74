"""The continuous baseline against values worked out by hand."""

import math

import pytest
import torch

from vqtrain.codebooks.kl import KL
from vqtrain.errors import ConfigError


def test_the_divergence_by_hand() -> None:
    # Means 1 and 0, log-variances 0 and ln 2: 1/2 and (2 - 1 - ln 2) / 2; their mean.
    z = torch.tensor([[[1.0], [0.0], [0.0], [math.log(2)]]])
    expected = (0.5 + (1 - math.log(2)) / 2) / 2
    torch.testing.assert_close(KL(size=None, dim=2, kl_weight=1.0)(z).loss, torch.tensor(expected))


def test_training_draws_samples_and_eval_takes_the_mean() -> None:
    codebook = KL(size=None, dim=1, kl_weight=1.0)
    z = torch.cat([torch.full((4, 1, 50, 50), 3.0), torch.full((4, 1, 50, 50), math.log(4))], 1)
    sample = codebook(z).z_q
    assert sample.mean().item() == pytest.approx(3, abs=0.1)
    assert sample.std().item() == pytest.approx(2, abs=0.1)
    assert (codebook.eval()(z).z_q == 3).all()


def test_a_sample_passes_gradients_to_mean_and_variance() -> None:
    z = torch.randn(1, 2, 3, requires_grad=True)
    KL(size=None, dim=1, kl_weight=0.0)(z).z_q.sum().backward()
    assert z.grad is not None
    assert (z.grad[0, 0] == 1).all()
    assert (z.grad[0, 1] != 0).all()


def test_it_has_no_ids_and_says_so() -> None:
    codebook = KL(size=4096, dim=2, kl_weight=0.0)
    assert (codebook.num_codebooks, codebook.size, codebook.in_channels) == (0, 0, 4)
    assert codebook(torch.zeros(2, 4, 3, 3)).token_ids.shape == (2, 0, 3, 3)
    with pytest.raises(ConfigError, match="codebook=kl is continuous, so there are no token ids"):
        codebook.decode(torch.zeros(1, 0, 3, dtype=torch.int64))


@pytest.mark.parametrize(
    ("size", "dim", "weight", "word"),
    [
        (None, 0, 0.0, "dim must be at least 1, got 0"),
        (0, 1, 0.0, "size must be at least 1 or null, got 0"),
        (None, 1, -1.0, "kl_weight must be at least 0"),
    ],
)
def test_impossible_arguments_are_refused(
    size: int | None, dim: int, weight: float, word: str
) -> None:
    with pytest.raises(ConfigError, match=word):
        KL(size=size, dim=dim, kl_weight=weight)
