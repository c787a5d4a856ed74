"""The decoder of TiTok: size, its sequence written out, and the first n tokens."""

import pytest
import torch
from torch import Tensor

from vqtrain import distributed
from vqtrain.decoders.latent_query import LatentQueryDecoder
from vqtrain.errors import ConfigError


def decoder(**changes: object) -> LatentQueryDecoder:
    sizes = {
        "out_channels": 3,
        "sample_size": (16, 24),
        "patch_size": 8,
        "num_tokens": 8,
        "dim": 16,
        "depth": 2,
        "num_heads": 2,
        "attention": "self",
        "positions": "learned",
        "head": "conv",
        "nested_dropout": "none",
    }
    return LatentQueryDecoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("sizes", "total"),
    [
        ({"num_tokens": 128, "dim": 512, "depth": 8, "num_heads": 8}, 25.82),
        ({"num_tokens": 64, "dim": 768, "depth": 12, "num_heads": 12}, 85.91),
        ({"num_tokens": 32, "dim": 1024, "depth": 24, "num_heads": 16}, 303.41),
    ],
)
def test_published_sizes(sizes: dict[str, int], total: float) -> None:
    with torch.device("meta"):
        module = decoder(sample_size=(256, 256), patch_size=16, **sizes)
    dim, depth = sizes["dim"], sizes["depth"]
    block = 4 * dim**2 + 4 * dim + 8 * dim**2 + 5 * dim + 4 * dim
    count = depth * block + 4 * dim  # and both norms
    count += 256 * dim + 2 * dim  # patches' positions, class and mask token
    count += sizes["num_tokens"] * dim  # positions of latents
    count += dim * 768 + 768 + 3 * 3 * 9 + 3
    assert sum(parameter.numel() for parameter in module.parameters()) == count
    # The map from 12 channels is the tokenizer's here, and one position is added into a token.
    assert round((count + 13 * dim + dim) / 1e6, 2) == total


def written_out(module: LatentQueryDecoder, latents: Tensor) -> Tensor:
    """The patches' queries and the latents as one sequence."""
    b = len(latents)
    queries = module.queries.mask_token + module.queries.positions.weight.flatten(1).T
    parts = [module.queries.class_token.expand(b, -1, -1), queries.expand(b, -1, -1)]
    parts.append(latents.transpose(1, 2) + module.queries.latent_positions)
    x = module.queries.transformer.pre_norm(torch.cat(parts, dim=1))
    for block in module.queries.transformer.blocks:
        x = block(x)
    tokens = module.queries.transformer.norm(x)[:, 1:7]
    flat = module.head.to_pixels.weight[..., 0, 0]
    patches = (tokens @ flat.T + module.head.to_pixels.bias).reshape(b, 2, 3, 3, 8, 8)
    pixels = patches.permute(0, 3, 1, 4, 2, 5).reshape(b, 3, 16, 24)
    return module.head.smooth(pixels)


def test_decoder_equals_its_sequence_written_out() -> None:
    torch.manual_seed(0)
    module = decoder().double()
    latents = torch.randn(2, 16, 8, dtype=torch.float64, requires_grad=True)
    images, want = module(latents), written_out(module, latents)
    torch.testing.assert_close(images, want, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), latents)[0] for y in (images, want)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("nested_dropout", "kept"), [("uniform", set(range(1, 9))), ("powers_of_2", {1, 2, 4, 8})]
)
def test_the_first_n_latents_are_decoded_as_they_are_trained(
    nested_dropout: str, kept: set[int]
) -> None:
    torch.manual_seed(0)
    module = decoder(nested_dropout=nested_dropout, depth=1)
    latents = torch.randn(1, 16, 8)
    alone = {n: module.eval()(latents[..., :n]) for n in range(1, 9)}
    module.train()
    found = set()
    for image in module(latents.expand(64, -1, -1)):
        near = [n for n, one in alone.items() if torch.allclose(image, one[0], atol=1e-5)]
        assert len(near) == 1
        found |= set(near)
    assert found == kept
    assert torch.equal(module.eval()(latents), alone[8])


@pytest.mark.parametrize("nested_dropout", ["uniform", "powers_of_2"])
def test_what_a_sample_keeps_follows_from_its_place_in_the_step(
    nested_dropout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = decoder(nested_dropout=nested_dropout, depth=1).double()
    latents = torch.randn(1, 16, 8, dtype=torch.float64).expand(16, -1, -1)
    module.begin_step(3, seed=0)
    joined = module(latents)
    # The second batch of the second of two ranks, with four samples in each batch.
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    module.begin_step(3, seed=0)
    parts = [module(latents[:4]) for _ in range(2)]
    torch.testing.assert_close(torch.cat(parts), torch.cat([joined[4:8], joined[12:]]))
    for step, seed in [(4, 0), (3, 1)]:
        module.begin_step(step, seed)
        assert not torch.allclose(module(latents[:4]), parts[0])


def test_other_numbers_of_latents_are_refused() -> None:
    message = "takes 8 latents, got a grid of 3: give encoder and decoder the same num_tokens, or"
    with pytest.raises(ConfigError, match=message):
        decoder().size((3,))
    nested = decoder(nested_dropout="uniform")
    assert nested.size((3,)) == nested.size((8,)) == (16, 24)
    with pytest.raises(ConfigError, match="takes 8 latents or the first of them, got a grid of 9"):
        nested.size((9,))
