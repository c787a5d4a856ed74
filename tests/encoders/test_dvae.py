"""The encoder of the DALL-E dVAE: size, and the order of its layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.encoders.dvae import DVAEEncoder
from vqtrain.errors import ConfigError


def encoder(**changes: object) -> DVAEEncoder:
    sizes = {"in_channels": 3, "channels": 4, "multipliers": [1, 2], "num_blocks": 2}
    return DVAEEncoder(**{**sizes, **changes})  # type: ignore[arg-type]  # as above


def test_published_size() -> None:
    with torch.device("meta"):
        module = encoder(channels=256, multipliers=[1, 2, 4, 8])
    count = sum(parameter.numel() for parameter in module.parameters())
    assert count + (2048 + 1) * 8192 == 53_786_240  # with the convolution to 8,192 scores
    assert module.downsampling == (8, 8)


def walk(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The encoder of ``encoder()``, layer by layer, from the names of its weights."""

    def conv(name: str, h: Tensor) -> Tensor:
        weight = w[f"{name}.weight"]
        return F.conv2d(h, weight, w[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def block(name: str, x: Tensor) -> Tensor:
        h = x
        for layer, kernel in ((1, 3), (3, 3), (5, 3), (7, 1)):
            assert w[f"{name}.res_path.{layer}.weight"].shape[2:] == (kernel, kernel)
            h = conv(f"{name}.res_path.{layer}", F.relu(h))
        around = conv(f"{name}.id_path", x) if f"{name}.id_path.weight" in w else x
        return around + h / 16  # the square of two groups of two blocks

    h = conv("0", (x + 1) / 2 * 0.8 + 0.1)
    h = F.max_pool2d(block("1.1", block("1.0", h)), 2)
    return F.relu(block("2.1", block("2.0", h)))


def test_encoder_equals_its_layers_written_out() -> None:
    torch.manual_seed(0)
    module = encoder().double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    images = torch.randn(1, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    weights = {name.removeprefix("layers."): w for name, w in module.named_parameters()}
    latents, want = module(images), walk(weights, images)
    assert latents.shape == (1, 8, 4, 6) == (1, module.out_channels, *module.grid((8, 12)))
    torch.testing.assert_close(latents, want)
    gradients = [torch.autograd.grad(y.square().sum(), images)[0] for y in (latents, want)]
    torch.testing.assert_close(*gradients)


def test_an_impossible_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="channels must be at least 4, got 3"):
        encoder(channels=3)
    with pytest.raises(ConfigError, match="multipliers must be a list of at least one number"):
        encoder(multipliers=[])
