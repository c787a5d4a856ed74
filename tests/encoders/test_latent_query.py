"""The encoder of TiTok: size, and its sequence written out."""

import pytest
import torch
from torch import Tensor

from vqtrain.encoders.latent_query import LatentQueryEncoder
from vqtrain.errors import ConfigError


def encoder(**changes: object) -> LatentQueryEncoder:
    sizes = {
        "in_channels": 3,
        "sample_size": (16, 24),
        "patch_size": 8,
        "num_tokens": 5,
        "dim": 16,
        "depth": 2,
        "num_heads": 2,
        "attention": "self",
        "positions": "learned",
        "transpose": True,
    }
    return LatentQueryEncoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("sizes", "published"),
    [
        ({"num_tokens": 128, "dim": 512, "depth": 8, "num_heads": 8}, 25_818_636),
        ({"num_tokens": 64, "dim": 768, "depth": 12, "num_heads": 12}, 85_904_652),
        ({"num_tokens": 32, "dim": 1024, "depth": 24, "num_heads": 16}, 303_410_188),
    ],
)
def test_published_sizes(sizes: dict[str, int], published: int) -> None:
    with torch.device("meta"):
        module = encoder(sample_size=(256, 256), patch_size=16, **sizes)
    # Theirs includes the 1x1 convolution to 12 channels, which is the tokenizer's here, and the
    # position of the class token, which is added into that token here. The queries are counted with
    # their model, and the positions of queries, which they are added to here, with its encoder.
    dim = sizes["dim"]
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count == published - (12 * dim + 12) - dim


def written_out(module: LatentQueryEncoder, images: Tensor) -> Tensor:
    """One sequence of class token, patches and queries, by torch's own attention."""
    weight = module.embed.weight.reshape(16, 3, 8, 8)
    patches = torch.nn.functional.conv2d(images, weight, module.embed.bias, stride=8)
    patches = patches.flatten(2).transpose(1, 2) + module.positions.weight.flatten(1).T
    b = len(images)
    parts = [module.class_token.expand(b, -1, -1), patches, module.queries.expand(b, -1, -1)]
    x = module.transformer.pre_norm(torch.cat(parts, dim=1))
    for block in module.transformer.blocks:
        normed = block.norm1(x)
        attended, _ = torch.nn.functional.multi_head_attention_forward(
            *[normed.transpose(0, 1)] * 3,
            16,
            2,
            block.attn.qkv.weight,
            block.attn.qkv.bias,
            None,
            None,
            False,
            0.0,
            block.attn.proj.weight,
            block.attn.proj.bias,
            need_weights=False,
        )
        x = x + attended.transpose(0, 1)
        hidden = torch.nn.functional.gelu(block.mlp.fc1(block.norm2(x)))
        x = x + block.mlp.fc2(hidden)
    return module.transformer.norm(x[:, -5:]).transpose(1, 2)


def test_encoder_equals_its_sequence_written_out() -> None:
    torch.manual_seed(0)
    module = encoder().double()
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64, requires_grad=True)
    latents, want = module(images), written_out(module, images)
    assert latents.shape == (2, 16, 5)
    torch.testing.assert_close(latents, want, rtol=0, atol=1e-9)
    # One latent after the other, in rows of 5 values for each of 16 channels.
    module.transpose = False
    torch.testing.assert_close(module(images).flatten(1), want.transpose(1, 2).flatten(1))
    gradients = [torch.autograd.grad(y.square().sum(), images)[0] for y in (latents, want)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


@pytest.mark.parametrize("positions", ["learned", "learned_2d", "sincos_2d"])
@pytest.mark.parametrize("attention", ["self", "cross"])
def test_any_number_of_latents(attention: str, positions: str) -> None:
    module = encoder(num_tokens=9, attention=attention, positions=positions)
    assert module.grid((16, 24)) == (9,)
    assert module(torch.randn(1, 3, 16, 24)).shape == (1, 16, 9)


def test_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="this encoder takes samples of 16 x 24, got 24 x 16"):
        encoder().grid((24, 16))
    with pytest.raises(ConfigError, match="num_tokens must be at least 1, got 0"):
        encoder(num_tokens=0)


@torch.no_grad()
def test_latents_tell_images_apart_from_the_start() -> None:
    torch.manual_seed(0)
    module = encoder(sample_size=(64, 64), dim=128, depth=2, num_heads=4)
    latents = module(torch.rand(16, 3, 1, 1).expand(-1, -1, 64, 64) * 2 - 1)
    share = latents.var(0).mean() / latents.var((0, 2)).mean()
    assert share > 0.01  # with weights of a standard deviation of 0.02 it is below 0.001
