"""The decoder of MaskGIT: size, and the order of its layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.decoders.maskgit import MaskGITDecoder
from vqtrain.errors import ConfigError


def decoder(**changes: object) -> MaskGITDecoder:
    sizes = {
        "out_channels": 3,
        "channels": 32,
        "multipliers": [1, 2],
        "num_blocks": 2,
        "latent_channels": 5,
    }
    return MaskGITDecoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ({"latent_channels": 256}, 30_478_339),  # MaskGIT
        ({"latent_channels": 14}, 29_363_203),  # MaskBit, 14 bits
        ({"latent_channels": 64}, 29_593_603),  # VQGAN+
    ],
)
def test_published_sizes(sizes: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        module = decoder(**{"channels": 128, "multipliers": [1, 1, 2, 2, 4], **sizes})
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def walk(w: dict[str, Tensor], z_q: Tensor) -> Tensor:
    """The decoder of ``decoder()``, layer by layer, from the names of its weights."""

    def convolved(name: str, h: Tensor) -> Tensor:
        return F.conv2d(h, w[f"{name}.weight"], w.get(f"{name}.bias"), padding=1)

    def normed(name: str, h: Tensor) -> Tensor:
        return F.silu(F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6))

    def block(name: str, x: Tensor) -> Tensor:
        h = convolved(f"{name}.conv1", normed(f"{name}.norm1", x))
        h = convolved(f"{name}.conv2", normed(f"{name}.norm2", h))
        joined = w.get(f"{name}.nin_shortcut.weight")
        return h + (x if joined is None else F.conv2d(h, joined))

    h = block("mid.1", block("mid.0", convolved("conv_in", z_q)))
    h = block("up.1.block.1", block("up.1.block.0", h))
    h = convolved("up.1.resampling.conv", h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
    h = block("up.0.block.1", block("up.0.block.0", h))
    return convolved("conv_out", normed("norm_out", h))


def test_decoder_equals_its_layers_written_out() -> None:
    torch.manual_seed(0)
    module = decoder().double()
    z_q = torch.randn(1, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    weights = {name.removeprefix("layers."): w for name, w in module.named_parameters()}
    images, want = module(z_q), walk(weights, z_q)
    assert images.shape == (1, 3, 8, 12) == (1, 3, *module.size((4, 6)))
    torch.testing.assert_close(images, want, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(y.square().sum(), z_q)[0] for y in (images, want)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_blocks must be at least 1, got 0"):
        decoder(num_blocks=0)
