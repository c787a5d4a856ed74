"""Which ids are replaced, by which others, and that batches do not matter."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.codebooks.base import leaves
from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import ConfigError
from vqtrain.generation.perturb import Perturbation
from vqtrain.ops.noise import SampleNoise

NETWORK = {"channels": 4, "block_channels": 2, "num_blocks": 1}
VQ = {
    "kind": "vq",
    "size": None,
    "dim": 2,
    "codebook_weight": 1.0,
    "commitment_weight": 0.25,
    "gradient": "straight_through",
    **PLAIN,
}


def make(kind: str, **arguments: object) -> Tokenizer:
    """Make a tokenizer of images, with a grid of half their side."""
    encoder = {"in_channels": 3, "num_downsamplings": 1, **NETWORK}
    decoder = {"out_channels": 3, "num_upsamplings": 1, **NETWORK}
    return Tokenizer(
        encoder={"kind": "vqvae", "arguments": encoder},
        codebook={"kind": kind, "arguments": arguments},
        decoder={"kind": "vqvae", "arguments": decoder},
        channels=3,
    ).eval()


def place(tokenizer: Tokenizer, table: int, positions: Tensor) -> None:
    """Put the codes of a table on a line."""
    (codes,) = leaves(tokenizer.codebook)[table].stored_tables()
    codes.data.copy_(positions[:, None] * torch.tensor([1.0, 2.0]))


def noise(count: int) -> SampleNoise:
    return SampleNoise(seeds=[(7, sample) for sample in range(count)])


def on_a_line(size: int) -> Tokenizer:
    tokenizer = make(**{**VQ, "size": size})
    place(tokenizer, 0, torch.arange(size).float())
    return tokenizer


def test_a_share_of_the_ids_become_one_of_the_nearest_others_with_equal_probability() -> None:
    ids = torch.full((20, 1, 30, 30), 25)
    change = Perturbation(on_a_line(50), neighbors=4)
    counts = change(ids, share=0.4, noise=noise(20)).flatten().bincount(minlength=50)
    assert counts.nonzero().flatten().tolist() == [23, 24, 25, 26, 27]
    shares = counts / counts.sum()
    assert shares[25].item() == pytest.approx(0.6, abs=0.02)
    assert shares[[23, 24, 26, 27]].tolist() == pytest.approx([0.1] * 4, abs=0.01)
    assert torch.equal(change(ids, share=0.0, noise=noise(20)), ids)
    assert (change(ids, share=1.0, noise=noise(20)) != ids).all()


def test_of_few_ids_all_others_are_near() -> None:
    change = Perturbation(on_a_line(3), neighbors=100)
    found = change(torch.full((1, 1, 20, 20), 0), share=1.0, noise=noise(1))
    assert found.unique().tolist() == [1, 2]


def test_copies_of_a_code_are_others() -> None:
    tokenizer = on_a_line(4)
    place(tokenizer, 0, torch.tensor([5.0, 5.0, 5.0, 9.0]))
    change = Perturbation(tokenizer, neighbors=2)
    ids = torch.arange(3).repeat(20)[None, None]
    found = change(ids, share=1.0, noise=noise(1))
    assert found.unique().tolist() == [0, 1, 2]
    assert (found != ids).all()


LFQ = {
    "kind": "lfq",
    "size": 64,
    "commitment_weight": 0.05,
    "entropy_weight": 0.02,
    "diversity": 1.0,
    "temperature": 0.1,
    "group_bits": 9,
}
FSQ = {"kind": "fsq", "size": None, "levels": [7, 7, 7], "eps": 1e-3}


# As many codes at equal distances as there are.
@pytest.mark.parametrize("codebook", [LFQ, FSQ], ids=["lfq", "fsq"])
def test_the_other_samples_of_a_batch_do_not_matter(codebook: Mapping[str, Any]) -> None:
    tokenizer = make(**codebook)
    ids = torch.randint(tokenizer.vocab_size, (6, 1, 5, 5))
    whole = Perturbation(tokenizer, neighbors=3)(ids, share=0.5, noise=noise(6))
    change = Perturbation(tokenizer, neighbors=3)
    for sample in reversed(range(6)):
        alone = SampleNoise(seeds=[(7, sample)])
        assert torch.equal(change(ids[[sample]], share=0.5, noise=alone)[0], whole[sample])


def test_near_ids_of_lfq_differ_in_a_sign_and_those_of_fsq_in_a_level() -> None:
    for codebook, neighbors, step in ((LFQ, 6, 2.0), (FSQ, 3, 1 / 3)):
        tokenizer = make(**codebook)
        ids = torch.arange(tokenizer.vocab_size).repeat(20)
        found = Perturbation(tokenizer, neighbors=neighbors)(
            ids[None, None], share=1.0, noise=noise(1)
        )
        codes = tokenizer.codebook_vectors
        distances = (codes[found[0, 0]] - codes[ids]).abs()
        assert (distances > 0).sum(dim=1).eq(1).all()  # a channel
        torch.testing.assert_close(distances.amax(dim=1), torch.full((len(ids),), step))


GROUPS = {"kind": "grouped", "num_codebooks": 2, "inner": VQ}
DEPTHS = {"kind": "residual", "num_codebooks": 2, "shared": True, "shrink": 1.0, "inner": VQ}
LEVELS = {"channels": 4, "block_channels": 2, "num_blocks": 0, "inner": VQ}
SCALES = {
    "scales": [1, 2],
    "num_convolutions": 1,
    "convolution_share": 0.5,
    "convolution_weight": 1.0,
    "inner": VQ,
}


@pytest.mark.parametrize(
    ("codebook", "shape", "tables"),
    [
        ({**DEPTHS, "num_codebooks": 3, "shared": False}, (3, 2, 2), [[[0]], [[1]], [[2]]]),
        (DEPTHS, (2, 2, 2), [0]),
        ({**GROUPS, "inner": {**DEPTHS, "size": None}}, (4, 3), [[0], [0], [1], [1]]),
        ({**DEPTHS, "inner": {**GROUPS, "size": None}}, (4, 3), [[0], [1], [0], [1]]),
        ({"kind": "hierarchical", **LEVELS}, (1, 5, 1), [[[0], [1], [1], [1], [1]]]),
        ({"kind": "multiscale", **SCALES}, (1, 5), [0]),
    ],
    ids=["depths", "shared", "depths of groups", "groups of depths", "levels", "scales"],
)
def test_codes_are_compared_within_the_codebook_of_each_id(
    codebook: Mapping[str, Any], shape: tuple[int, ...], tables: list[Any]
) -> None:
    tokenizer = make(size=16, **codebook)
    # In table t the nearest code of each id differs in bit t: pairs are far from each other.
    for table in range(len(leaves(tokenizer.codebook))):
        ids = torch.arange(16)
        bit = ids >> table & 1
        place(tokenizer, table, (ids - (bit << table)) * 10.0 + bit)
    token_ids = torch.randint(16, (2, *shape))
    found = Perturbation(tokenizer, neighbors=1)(token_ids, share=1.0, noise=noise(2))
    assert torch.equal(found, token_ids ^ (1 << torch.tensor(tables)))


def test_what_cannot_be_perturbed_is_refused() -> None:
    with pytest.raises(ConfigError, match="one id has no near ids"):
        Perturbation(on_a_line(1), neighbors=1)
    with pytest.raises(ConfigError, match="continuous"):
        Perturbation(make("kl", size=None, dim=4, kl_weight=1e-6), neighbors=1)
    with pytest.raises(ConfigError, match="neighbors must be at least 1, got 0"):
        Perturbation(on_a_line(4), neighbors=0)
