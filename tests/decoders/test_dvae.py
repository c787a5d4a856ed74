"""The decoder of the DALL-E dVAE: size, and the order of its layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.decoders.dvae import DVAEDecoder
from vqtrain.errors import ConfigError


def decoder(**changes: object) -> DVAEDecoder:
    sizes = {
        "out_channels": 3,
        "latent_channels": 5,
        "channels": 4,
        "multipliers": [1, 2],
        "num_blocks": 2,
    }
    return DVAEDecoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


def test_published_size() -> None:
    with torch.device("meta"):
        module = decoder(latent_channels=128, channels=256, multipliers=[1, 2, 4, 8])
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count + (8192 + 1) * 128 == 43_829_766  # with the convolution of 8,192 codes
    assert module.upsampling == (8, 8)


def walk(w: dict[str, Tensor], z_q: Tensor) -> Tensor:
    """The decoder of ``decoder()``, layer by layer, from the names of its weights."""

    def conv(name: str, h: Tensor) -> Tensor:
        weight = w[f"{name}.weight"]
        return F.conv2d(h, weight, w[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def block(name: str, x: Tensor) -> Tensor:
        h = x
        for layer, kernel in ((1, 1), (3, 3), (5, 3), (7, 3)):
            assert w[f"{name}.res_path.{layer}.weight"].shape[2:] == (kernel, kernel)
            h = conv(f"{name}.res_path.{layer}", F.relu(h))
        around = conv(f"{name}.id_path", x) if f"{name}.id_path.weight" in w else x
        return around + h / 16  # the square of two groups of two blocks

    h = block("0.1", block("0.0", z_q)).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    six = conv("3", F.relu(block("1.1", block("1.0", h))))
    images = ((torch.sigmoid(six[:, :3]) - 0.1) / 0.8) * 2 - 1
    return torch.cat([images, six[:, 3:]], dim=1)


def test_decoder_equals_its_layers_written_out() -> None:
    torch.manual_seed(0)
    module = decoder().double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    z_q = torch.randn(1, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    weights = {name.removeprefix("layers."): w for name, w in module.named_parameters()}
    images, want = module(z_q), walk(weights, z_q)
    assert module.extra_channels == 3
    assert images.shape == (1, 6, 8, 12) == (1, 6, *module.size((4, 6)))
    assert module.last_layer.weight is weights["3.weight"]
    torch.testing.assert_close(images, want)
    gradients = [torch.autograd.grad(y.square().sum(), z_q)[0] for y in (images, want)]
    torch.testing.assert_close(*gradients)


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_blocks must be at least 1, got 0"):
        decoder(num_blocks=0)
