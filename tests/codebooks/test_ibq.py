"""IBQ against values worked out by hand."""

from collections.abc import Callable

import pytest
import torch

from vqtrain.codebooks.base import Codebook
from vqtrain.codebooks.grouped import Grouped
from vqtrain.codebooks.ibq import IBQ
from vqtrain.codebooks.multiscale import MultiScale
from vqtrain.codebooks.residual import Residual
from vqtrain.errors import ConfigError


def make(**changes: object) -> IBQ:
    arguments: dict[str, object] = {
        "size": 3,
        "dim": 2,
        "index_weight": 1.0,
        "codebook_weight": 0.25,
        "commitment_weight": 1.0,
        "entropy_weight": 0.0,
        "entropy_temperature": 0.01,
    }
    codebook = IBQ(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data
    if codebook.vectors.shape == (3, 2):
        with torch.no_grad():
            codebook.vectors.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]))
    return codebook


def test_the_largest_inner_product_wins_although_another_code_is_nearer() -> None:
    z = torch.tensor([[[1.0, -1.0], [0.0, 0.5]]])  # the vectors (1, 0) and (-1, 0.5)
    quantized = make()(z)
    # Products of the first: 1, 0, 5. Of the second: -1, 0.5, -2.5.
    assert quantized.token_ids.tolist() == [[[2, 1]]]
    assert quantized.z_q.tolist() == [[[5.0, 0.0], [5.0, 1.0]]]
    # Squared differences 16, 25, 1, .25: mean 10.5625, times 1 + .25 + 1.
    torch.testing.assert_close(quantized.loss, torch.tensor(10.5625 * 2.25))


def test_every_code_has_a_gradient_whichever_was_chosen() -> None:
    codebook = make()
    codebook(torch.tensor([[[0.1], [0.2]]])).z_q.sum().backward()
    assert codebook.vectors.grad is not None
    assert (codebook.vectors.grad.abs().sum(1) > 0).all()


def test_codes_start_as_directions_of_the_data_of_one_length() -> None:
    codebook = make(size=8)
    z = torch.randn(1, 2, 20)
    codebook.initialize(z)
    vectors = z[0].T
    lengths = codebook.vectors.norm(dim=1)
    torch.testing.assert_close(lengths, vectors.norm(dim=1).mean().expand(8))
    cosines = torch.nn.functional.cosine_similarity(codebook.vectors[:, None], vectors[None], 2)
    torch.testing.assert_close(cosines.amax(1), torch.ones(8))


@pytest.mark.parametrize(
    "outer",
    [
        lambda inner: Residual(size=3, num_codebooks=2, shared=False, shrink=1.0, inner=inner),
        lambda inner: Grouped(size=3, num_codebooks=2, inner=inner),
        lambda inner: MultiScale(
            size=3,
            scales=[1, 2],
            num_convolutions=1,
            convolution_share=0.5,
            convolution_weight=1.0,
            inner=inner,
        ),
    ],
)
def test_codebooks_around_it_start_from_scaled_latents_that_keep_their_directions(
    outer: Callable[[dict[str, object]], Codebook],
) -> None:
    weights = dict.fromkeys(("index_weight", "codebook_weight", "commitment_weight"), 1.0)
    entropies = {"entropy_weight": 0.0, "entropy_temperature": 1.0}
    codebook = outer({"kind": "ibq", "size": None, "dim": 2, **weights, **entropies})
    assert (codebook.initial_std, codebook.initial_whitening) == (0.3, False)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"index_weight": -1.0}, "index_weight must be at least 0"),
        ({"entropy_temperature": 0.0}, "entropy_temperature must be above 0"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)
