"""Multi-scale quantization against values worked out by hand."""

from typing import Any

import pytest
import torch

from vqtrain.codebooks.multiscale import MultiScale, share_out
from vqtrain.errors import ConfigError

SIMVQ = {
    "kind": "simvq",
    "size": None,
    "dim": 1,
    "codebook_weight": 0.0,
    "commitment_weight": 1.0,
    "gradient": "straight_through",
}


def make(**changes: Any) -> MultiScale:
    arguments = {
        "size": 3,
        "scales": [1, 2],
        "num_convolutions": 1,
        "convolution_share": 0.0,
        "convolution_weight": 1.0,
        "inner": SIMVQ,
    }
    return MultiScale(**{**arguments, **changes})


def test_coarse_and_fine_by_hand() -> None:
    codebook = make()
    with torch.no_grad():
        codebook.codebook.frozen.copy_(torch.tensor([[0.0], [4.0], [-3.0]]))
        codebook.codebook.map.weight.fill_(1.0)
        codebook.codebook.map.bias.zero_()
    z = torch.tensor([[[[8.0, 4.0], [3.5, 1.5]]]])
    quantized = codebook(z)
    # The mean, 4.25, takes the code 4, everywhere. Left are 4, 0, -0.5 and -2.5: codes 4, 0, 0, -3.
    assert quantized.token_ids.tolist() == [[[1, 1, 0, 0, 2]]]
    assert quantized.z_q.tolist() == [[[[8.0, 4.0], [4.0, 1.0]]]]
    # Commitment: .0625, then the mean of 0, 0, .25 and .25, both halved. The sums: the mean of
    # 16, 0, .25 and 6.25, then that of 0, 0, .25 and .25.
    expected = (0.0625 + 0.125) / 2 + (5.625 + 0.125) / 2
    torch.testing.assert_close(quantized.loss, torch.tensor(expected))
    assert torch.equal(codebook.decode(quantized.token_ids), quantized.z_q)


def test_a_convolution_is_mixed_in_by_its_share() -> None:
    codebook = make(scales=[2], convolution_share=0.25)
    with torch.no_grad():
        codebook.codebook.frozen.copy_(torch.tensor([[1.0], [100.0], [200.0]]))
        codebook.codebook.map.weight.fill_(1.0)
        codebook.codebook.map.bias.zero_()
        codebook.convolutions[0].weight.zero_()
        codebook.convolutions[0].bias.fill_(3.0)
    # 0.75 of the code 1 and 0.25 of the convolution's 3.
    assert (codebook(torch.ones(1, 1, 2, 2)).z_q == 1.5).all()


def test_the_convolutions_learn_from_the_sums_and_the_latents_do_not() -> None:
    codebook = make(scales=[2], convolution_share=0.5, inner={**SIMVQ, "commitment_weight": 0.0})
    z = torch.randn(1, 1, 2, 2, requires_grad=True)
    codebook(z).loss.backward()
    assert codebook.convolutions[0].weight.grad is not None
    assert codebook.convolutions[0].weight.grad.abs().sum() > 0
    assert z.grad is None or z.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("convolutions", "scales", "expected"),
    [
        (1, 3, [0, 0, 0]),
        (2, 3, [0, 1, 1]),
        (4, 10, [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]),  # as VAR's code shares them
    ],
)
def test_scales_share_convolutions(convolutions: int, scales: int, expected: list[int]) -> None:
    assert share_out(convolutions, scales) == expected


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"scales": []}, "growing sides of grids"),
        ({"scales": [2, 2]}, r"growing sides of grids, such as \[1,2,4\], got \[2, 2\]"),
        ({"scales": [0, 2]}, "growing sides of grids"),
        ({"num_convolutions": 3}, "num_convolutions=3 are too many for 2 scales, of which 2"),
        ({"num_convolutions": 0}, "num_convolutions must be at least 1"),
        ({"convolution_share": 1.5}, r"convolution_share must be in \[0, 1\], got 1.5"),
        ({"convolution_weight": -1.0}, "convolution_weight must be at least 0"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)


def test_a_codebook_that_learns_from_the_decoder_alone_is_refused() -> None:
    gumbel = {
        "kind": "gumbel",
        "size": None,
        "dim": 1,
        "kl_weight": 0.0,
        "temperature": 1.0,
        "final_temperature": 1.0,
        "temperature_steps": 1,
    }
    with pytest.raises(ConfigError, match="gumbel learns from the decoder alone"):
        make(inner=gumbel)


def test_another_grid_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"need a square 2-D grid of 2 x 2, got 4 x 4"):
        make()(torch.zeros(1, 1, 4, 4))


def test_the_ids_of_all_scales_are_one_list() -> None:
    codebook = make(scales=[1, 2])
    assert codebook.tokens((2, 2)) == (5,)
    assert codebook.token_grids == ((1, 1), (2, 2))
    grids = codebook.id_grids(torch.arange(5)[None])
    assert [grid.tolist() for grid in grids] == [[[0]], [[1, 2], [3, 4]]]
    for grid in ((4,), (2, 4), (2, 2, 2)):
        with pytest.raises(ConfigError, match="need a square 2-D grid of 2 x 2"):
            codebook.tokens(grid)
