"""SimVQ against values worked out by hand."""

import pytest
import torch

from vqtrain.codebooks.simvq import SimVQ
from vqtrain.errors import ConfigError


def make(**changes: object) -> SimVQ:
    arguments: dict[str, object] = {
        "size": 2,
        "dim": 2,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "gradient": "straight_through",
    }
    codebook = SimVQ(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data
    with torch.no_grad():
        codebook.frozen.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        codebook.map.weight.copy_(torch.tensor([[0.0, 3.0], [2.0, 0.0]]))
        codebook.map.bias.zero_()
    return codebook


def test_codes_are_mapped_before_they_are_compared_and_decoded() -> None:
    codebook = make()
    # The map takes (1, 0) to (0, 2), and (0, 1) to (3, 0).
    z = torch.tensor([[[2.0], [0.5]]])
    quantized = codebook(z)
    assert quantized.token_ids.item() == 1
    assert quantized.z_q.tolist() == [[[3.0], [0.0]]]
    assert codebook.decode(torch.tensor([[[1]]])).tolist() == [[[3.0], [0.0]]]
    # Squared differences 1 and .25: mean .625, times codebook 1 + commitment .25.
    torch.testing.assert_close(quantized.loss, torch.tensor(0.625 * 1.25))


def test_codes_start_with_the_mean_and_the_covariance_of_the_data() -> None:
    arguments = {"codebook_weight": 1.0, "commitment_weight": 0.25, "gradient": "rotation"}
    codebook = SimVQ(size=20_000, dim=3, **arguments).double()  # type: ignore[arg-type]  # plain data
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.1]]).double()
    z = torch.randn(50, 100, 3, dtype=torch.float64) @ mixing.T + torch.tensor([5.0, 0.0, -1.0])
    codebook.initialize(z.transpose(1, 2))
    flat, table = z.flatten(0, 1), codebook.table()
    torch.testing.assert_close(table.mean(0), flat.mean(0), rtol=0, atol=0.05)
    torch.testing.assert_close(table.T.cov(), flat.T.cov(), rtol=0, atol=0.1)


def test_a_start_from_latents_that_are_all_alike_is_finite() -> None:
    codebook = make()
    codebook.initialize(torch.ones(2, 2, 4))
    torch.testing.assert_close(codebook.table(), torch.ones(2, 2))


def test_one_code_that_wins_moves_the_map_and_not_the_frozen_table() -> None:
    codebook = make()
    codebook(torch.tensor([[[2.0], [0.5]]])).loss.backward()
    # d mean((e - z)^2) / de = (1, -0.5), times the frozen row (0, 1).
    assert codebook.map.weight.grad is not None
    assert codebook.map.weight.grad.tolist() == [[0.0, 1.0], [0.0, -0.5]]
    assert [name for name, _ in codebook.named_parameters()] == ["map.weight", "map.bias"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"codebook_weight": -1.0}, "codebook_weight must be at least 0"),
        ({"gradient": "both"}, "one of straight_through, rotation, got 'both'"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, object], word: str) -> None:
    arguments: dict[str, object] = {
        "size": 2,
        "dim": 2,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "gradient": "rotation",
    }
    with pytest.raises(ConfigError, match=word):
        SimVQ(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data
