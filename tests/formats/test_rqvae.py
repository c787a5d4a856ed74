"""RQ-VAE, beside a forward pass written from its description."""

from collections.abc import Callable
from math import prod

import pytest
import torch
from torch import Tensor

from vqtrain.app.convert import tokens_of
from vqtrain.errors import CheckpointError
from vqtrain.formats.rqvae import RQVAE

Weights = dict[str, Tensor]
BOOK = "quantizer.codebooks."
SMALL = {"channels": 32, "multipliers": [1, 2], "latents": 8}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def weights(published_cnn, images) -> Weights:
    """A small network by the names of the published files, with codes among its latents."""
    drawn = published_cnn.drawn(published_cnn.shapes(**SMALL, kernel=1, is_fused=False))
    latents = published_cnn(drawn).encode(images, levels=2).movedim(1, -1).flatten(0, 2)
    codes = latents[torch.randperm(len(latents))[:24]] * torch.linspace(1, 0.1, 24)[:, None]
    counts = torch.rand(24) + 1
    for depth in range(4):
        drawn[f"{BOOK}{depth}.weight"] = torch.cat([codes, torch.zeros(1, 8)])
        drawn[f"{BOOK}{depth}.cluster_size_ema"] = counts
        drawn[f"{BOOK}{depth}.embed_ema"] = codes * counts[:, None]
    return drawn


@pytest.fixture
def convert(tmp_path) -> Callable[[Weights], object]:
    def converted(weights: Weights) -> object:
        torch.save({"epoch": 10, "state_dict": weights}, tmp_path / "model.pt")
        return RQVAE().convert(tmp_path / "model.pt")

    return converted


def test_sizes_are_those_of_the_published_networks(published_cnn):
    shapes = published_cnn.shapes(
        channels=128, multipliers=[1, 1, 2, 2, 4, 4], latents=256, kernel=1, is_fused=False
    )
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + prod(shape)
    assert (counts["encoder"], counts["decoder"]) == (41_101_312, 58_974_595)
    assert counts["quant_conv"] + counts["post_quant_conv"] == 131_584


@torch.no_grad()
def test_ids_and_pixels_follow_its_depths(published_cnn, weights, images, convert):
    network, codes = published_cnn(weights), weights[f"{BOOK}0.weight"][:-1]
    rest = network.encode(images, levels=2)
    total, ids = torch.zeros_like(rest), []
    for _ in range(4):
        vectors = rest.movedim(1, -1).flatten(1, 2)
        ids.append(torch.cdist(vectors, codes).argmin(dim=2).view(2, 8, 12))
        z_q = codes[ids[-1]].movedim(-1, 1)
        total, rest = total + z_q, rest - z_q
    tokenizer = convert(weights)
    token_ids = tokenizer.encode(images)
    assert tokens_of(tokenizer) == "24, 4 for 2 x 2 px"
    assert token_ids.shape == (2, 4, 8, 12)
    assert torch.equal(token_ids, torch.stack(ids, dim=1))
    assert len(token_ids.unique()) > 12
    made = tokenizer(images).samples
    torch.testing.assert_close(made, network.decode(total, levels=2), atol=1e-5, rtol=1e-5)


def test_the_codebook_goes_on_from_its_averages(weights, convert):
    tokenizer = convert(weights)
    (inner,) = tokenizer.codebook.levels
    assert torch.equal(inner.average_counts, weights[f"{BOOK}0.cluster_size_ema"])
    assert torch.equal(inner.average_sums, weights[f"{BOOK}0.embed_ema"])
    arguments = tokenizer.config["codebook"]["arguments"]
    assert (arguments["size"], arguments["num_codebooks"], arguments["shared"]) == (24, 4, True)
    assert (arguments["inner"]["dim"], arguments["inner"]["decay"]) == (8, 0.99)


def test_codebooks_that_are_not_one_are_refused(weights, convert):
    other = {f"{BOOK}2.weight": weights[f"{BOOK}2.weight"] + 1}
    with pytest.raises(CheckpointError, match=r"codebooks\.2\.weight differs from .*\.0\.weight"):
        convert(weights | other)
    padded = {f"{BOOK}2.weight": torch.cat([weights[f"{BOOK}2.weight"][:-1], torch.ones(1, 8)])}
    convert(weights | padded)  # the last row is no code


SAID = {
    "missing": ["{key} is missing"],
    "renamed": ["{key} is missing", "{key}_ is unknown"],
    "misshaped": ["{key} is [", "] instead of ["],
}


@pytest.mark.parametrize(("edit", "said"), SAID.items(), ids=list(SAID))
def test_a_difference_is_named(published_cnn, weights, convert, edit, said):
    for key in (
        "post_quant_conv.bias",
        f"{BOOK}0.weight",
        f"{BOOK}3.weight",
        f"{BOOK}1.cluster_size_ema",
    ):
        changed = published_cnn(weights).without(key, then=edit)
        with pytest.raises(CheckpointError) as raised:
            convert(changed)
        for words in said:
            assert words.format(key=key) in str(raised.value)
