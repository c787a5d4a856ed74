"""The rectifier: what it begins as, its layers written out, and its size."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.decoders.rectifier import RectifierDecoder
from vqtrain.errors import ConfigError


def test_it_begins_as_the_identity_map_and_learns_at_once() -> None:
    module = RectifierDecoder(out_channels=4, channels=8, num_blocks=1)
    assert (module.in_channels, module.upsampling, module.size((3, 5))) == (4, (1, 1), (3, 5))
    z_q = torch.randn(2, 4, 3, 5)
    assert torch.equal(module(z_q), z_q)
    module(z_q).square().mean().backward()
    assert module.last_layer.weight.grad.abs().sum() > 0


def test_it_equals_its_layers_written_out() -> None:
    torch.manual_seed(0)
    module = RectifierDecoder(out_channels=4, channels=32, num_blocks=2).double()
    torch.nn.init.normal_(module.conv_out.weight)
    w = module.state_dict()

    def convolved(name: str, h: Tensor) -> Tensor:
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    def activated(name: str, h: Tensor) -> Tensor:
        return F.silu(F.group_norm(h, 32, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6))

    z_q = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    h = convolved("conv_in", z_q)
    for block in ("block.0", "block.1"):
        first = convolved(f"{block}.conv1", activated(f"{block}.norm1", h))
        h = h + convolved(f"{block}.conv2", activated(f"{block}.norm2", first))
    torch.testing.assert_close(module(z_q), z_q + convolved("conv_out", activated("norm_out", h)))


def test_it_has_the_size_that_its_config_names() -> None:
    with torch.device("meta"):
        module = RectifierDecoder(out_channels=16, channels=256, num_blocks=4)
    block = 2 * (2 * 256) + 2 * (9 * 256 * 256 + 256)
    count = (9 * 16 * 256 + 256) + 4 * block + 2 * 256 + (9 * 256 * 16 + 16)
    assert sum(parameter.numel() for parameter in module.parameters()) == count == 4_799_248


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_blocks must be at least 1, got 0"):
        RectifierDecoder(out_channels=4, channels=8, num_blocks=0)
