"""VQ against numbers worked out by hand, and its two gradients."""

import pytest
import torch

from vqtrain.codebooks.vq import VQ
from vqtrain.errors import ConfigError


def make(**changes: object) -> VQ:
    arguments: dict[str, object] = {
        "size": 2,
        "dim": 2,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "l2_normalize": False,
    }
    codebook = VQ(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data
    with torch.no_grad():
        codebook.vectors.copy_(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
    return codebook


def test_ids_codes_and_loss_by_hand() -> None:
    # Columns (0.2, 0.1) and (1, 1): the first is nearest to code 0, the second to code 1.
    z = torch.tensor([[[0.2, 1.0], [0.1, 1.0]]])
    quantized = make()(z)
    assert quantized.token_ids.tolist() == [[[0, 1]]]
    torch.testing.assert_close(quantized.z_q, torch.tensor([[[0.0, 1.0], [0.0, 2.0]]]))
    # Squared differences .04, .01, 0, 1: mean .2625, times codebook 1 + commitment .25.
    torch.testing.assert_close(quantized.loss, torch.tensor(0.2625 * 1.25))


def test_each_weight_moves_its_own_side() -> None:
    z = torch.tensor([[[0.2], [0.1]]], requires_grad=True)
    codebook = make(commitment_weight=0.5)
    codebook(z).loss.backward()
    # d/dz of .5 * mean((z - e)^2) over two elements: .5 * (z - e).
    torch.testing.assert_close(z.grad, torch.tensor([[[0.1], [0.05]]]))
    # d/de of 1 * mean((e - z)^2): e - z for the code that won, nothing for the other.
    torch.testing.assert_close(codebook.vectors.grad, torch.tensor([[-0.2, -0.1], [0.0, 0.0]]))


def test_normalized_lookup_compares_directions() -> None:
    codebook = make(l2_normalize=True)
    with torch.no_grad():
        codebook.vectors.copy_(torch.tensor([[0.1, 0.0], [3.0, 3.0]]))
    # (5, 1) points along the first axis, although the other code is nearer.
    quantized = codebook(torch.tensor([[[5.0], [1.0]]]))
    assert quantized.token_ids.item() == 0
    torch.testing.assert_close(quantized.z_q, torch.tensor([[[1.0], [0.0]]]))


def test_initialize_takes_vectors_of_the_data() -> None:
    codebook = make()
    z = torch.arange(16.0).reshape(1, 2, 8)
    codebook.initialize(z)
    columns = {tuple(column) for column in z[0].T.tolist()}
    codes = {tuple(row) for row in codebook.vectors.tolist()}
    assert codes <= columns
    assert len(codes) == 2


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"size": 0}, "size=0"), ({"dim": 0}, "dim=0"), ({"commitment_weight": -1.0}, "-1.0")],
)
def test_impossible_arguments_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)
