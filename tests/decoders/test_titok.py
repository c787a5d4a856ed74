"""The decoder of the two-stage TiTok: size, and what it mixes."""

import pytest
import torch
from torch import Tensor

from vqtrain.decoders.titok import TiTokDecoder
from vqtrain.errors import ConfigError


def decoder(**changes: object) -> TiTokDecoder:
    sizes = {
        "out_channels": 3,
        "sample_size": (8, 12),
        "num_tokens": 5,
        "dim": 16,
        "depth": 1,
        "num_heads": 2,
        "num_codes": 7,
        "channels": 32,
        "multipliers": [1, 1, 2],
        "num_blocks": 1,
        "latent_channels": 6,
    }
    return TiTokDecoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("sizes", "published"),
    [
        ({"num_tokens": 128, "dim": 512, "depth": 8, "num_heads": 8}, 27_000_832),
        ({"num_tokens": 64, "dim": 768, "depth": 12, "num_heads": 12}, 88_070_656),
        ({"num_tokens": 32, "dim": 1024, "depth": 24, "num_heads": 16}, 306_822_144),
    ],
)
def test_published_sizes(sizes: dict[str, int], published: int) -> None:
    maskgit = {"channels": 128, "multipliers": [1, 1, 2, 2, 4], "num_blocks": 2}
    with torch.device("meta"):
        module = decoder(
            sample_size=(256, 256), num_codes=1024, latent_channels=256, **maskgit, **sizes
        )
    # The map from 12 channels is the tokenizer's here, and one position is added into a token.
    own = published - 13 * sizes["dim"] - sizes["dim"]
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count == own + 30_478_339 + 1024 * 256


def test_pixels_are_those_of_the_mixed_codes() -> None:
    torch.manual_seed(0)
    module = decoder().double()
    latents = torch.randn(2, 16, 5, dtype=torch.float64)
    tokens = module.queries(latents.transpose(1, 2)).movedim(1, -1)
    first, last = module.scores[0], module.scores[2]
    hidden = (tokens @ first.weight[..., 0, 0].T + first.bias).tanh()
    scores = (hidden @ last.weight[..., 0, 0].T + last.bias).exp()
    mixed: Tensor = (scores / scores.sum(-1, keepdim=True)) @ module.codes
    images = module(latents)
    assert images.shape == (2, 3, 8, 12) == (2, 3, *module.size((5,)))
    torch.testing.assert_close(images, module.pixels(mixed.movedim(-1, 1)), rtol=0, atol=1e-9)


def test_other_numbers_of_latents_are_refused() -> None:
    with pytest.raises(ConfigError, match="this decoder takes 5 latents, got a grid of 4"):
        decoder().size((4,))
