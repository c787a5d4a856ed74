"""The encoder of MaskGIT: size, and the order of its layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.encoders.maskgit import MaskGITEncoder
from vqtrain.errors import ConfigError


def encoder(**changes: object) -> MaskGITEncoder:
    sizes = {
        "in_channels": 3,
        "channels": 32,
        "multipliers": [1, 2],
        "num_blocks": 2,
        "latent_channels": 5,
        "downsampling": "pool",
        "input_range": [-1.0, 1.0],
    }
    return MaskGITEncoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"latent_channels": 256}, 23_775_104),  # MaskGIT
        ({"latent_channels": 14, "downsampling": "conv"}, 25_126_286),  # MaskBit, 14 bits
        ({"latent_channels": 64, "downsampling": "conv"}, 25_151_936),  # VQGAN+
    ],
)
def test_published_sizes(sizes: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        module = encoder(**{"channels": 128, "multipliers": [1, 1, 2, 2, 4], **sizes})
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def walk(w: dict[str, Tensor], x: Tensor, downsampling: str) -> Tensor:
    """The encoder of ``encoder()``, layer by layer, from the names of its weights."""

    def normed(name: str, h: Tensor) -> Tensor:
        return F.silu(F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6))

    def block(name: str, x: Tensor) -> Tensor:
        h = F.conv2d(normed(f"{name}.norm1", x), w[f"{name}.conv1.weight"], padding=1)
        h = F.conv2d(normed(f"{name}.norm2", h), w[f"{name}.conv2.weight"], padding=1)
        joined = w.get(f"{name}.nin_shortcut.weight")
        return h + (x if joined is None else F.conv2d(h, joined))

    h = F.conv2d(x, w["conv_in.weight"], padding=1)
    h = block("down.0.block.1", block("down.0.block.0", h))
    if downsampling == "pool":
        h = F.avg_pool2d(h, 2)
    else:
        conv = w["down.0.resampling.conv.weight"], w["down.0.resampling.conv.bias"]
        h = F.conv2d(F.pad(h, (0, 1, 0, 1)), *conv, stride=2)
    h = block("down.1.block.1", block("down.1.block.0", h))
    h = block("mid.1", block("mid.0", h))
    return F.conv2d(normed("norm_out", h), w["conv_out.weight"], w["conv_out.bias"])


@pytest.mark.parametrize("downsampling", ["pool", "conv"])
def test_encoder_equals_its_layers_written_out(downsampling: str) -> None:
    torch.manual_seed(0)
    module = encoder(downsampling=downsampling).double()
    images = torch.randn(1, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    weights = {name.removeprefix("layers."): w for name, w in module.named_parameters()}
    latents, want = module(images), walk(weights, images, downsampling)
    assert latents.shape == (1, 5, 4, 6) == (1, 5, *module.grid((8, 12)))
    torch.testing.assert_close(latents, want, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), images)[0] for y in (latents, want)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_zeros_around_the_image_may_be_black() -> None:
    torch.manual_seed(0)
    module, images = encoder(input_range=[0.0, 1.0]).double(), torch.rand(1, 3, 8, 8).double()
    weights = {name.removeprefix("layers."): w for name, w in module.named_parameters()}
    want = walk(weights, images, "pool")
    torch.testing.assert_close(module(images * 2 - 1), want, rtol=0, atol=1e-9)


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_blocks must be at least 1, got 0"):
        encoder(num_blocks=0)
    with pytest.raises(ConfigError, match="multipliers must be a list of at least one number"):
        encoder(multipliers=[])
    with pytest.raises(ConfigError, match=r"input_range must be two numbers, .* got \[1.0, 0.0\]"):
        encoder(input_range=[1.0, 0.0])
