"""Product quantization against values worked out by hand."""

from typing import Any

import pytest
import torch

from vqtrain.codebooks.grouped import Grouped
from vqtrain.errors import ConfigError

FSQ = {"kind": "fsq", "size": None, "levels": None, "eps": 1e-3}


def make(**changes: Any) -> Grouped:
    return Grouped(**{"size": 15, "num_codebooks": 2, "inner": FSQ, **changes})


def test_channels_are_split_in_order_and_ids_stand_by_group() -> None:
    codebook = make()
    assert (codebook.size, codebook.dim, codebook.num_codebooks) == (15, 4, 2)
    # Levels 5 and 3 in each group; the highest ones are digits 4 and 2, the lowest ones 0.
    z = torch.tensor([[[9.0], [-9.0], [-9.0], [9.0]]])
    quantized = codebook(z)
    assert quantized.token_ids.tolist() == [[[4], [10]]]  # 4 + 5 * 0, and 0 + 5 * 2
    assert quantized.z_q.tolist() == [[[1.0], [-1.0], [-1.0], [1.0]]]
    grids = codebook.id_grids(quantized.token_ids[0])  # to look at: a list is a row
    assert [grid.tolist() for grid in grids] == [[[4]], [[10]]]


def test_the_loss_is_the_mean_of_the_groups() -> None:
    lfq = {
        "kind": "lfq",
        "size": None,
        "commitment_weight": 1.0,
        "entropy_weight": 0.0,
        "diversity": 1.0,
        "temperature": 1.0,
        "group_bits": 9,
    }
    codebook = make(size=2, inner=lfq)
    # Squared distances from the signs: .25 and 4.
    quantized = codebook(torch.tensor([[[0.5], [3.0]]]))
    torch.testing.assert_close(quantized.loss, torch.tensor((0.25 + 4) / 2))
    torch.testing.assert_close(quantized.metrics["distance"].item(), (0.25 + 4) / 2)


def test_groups_have_tables_of_their_own() -> None:
    simvq = {
        "kind": "simvq",
        "size": None,
        "dim": 3,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "gradient": "rotation",
    }
    first, second = make(size=8, inner=simvq).groups
    assert not torch.equal(first.table(), second.table())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"num_codebooks": 0}, "num_codebooks must be at least 1, got 0"),
        ({"size": 512}, "^inner=fsq: there are no levels for size=512"),
        ({"inner": {**FSQ, "eps": 0.0}}, "eps must be above 0"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)
