"""The discriminator of VQGAN+ against formulas written out from its raw weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import grad

from vqtrain.discriminators.blur import BlurGAN
from vqtrain.errors import ConfigError


def blur(**changes: object) -> BlurGAN:
    arguments = {"in_channels": 3, "channels": 64, "num_layers": 2, "max_grid": 3, **changes}
    torch.manual_seed(0)
    return BlurGAN(**arguments)  # type: ignore[arg-type]  # plain data


@pytest.mark.parametrize("layers", [3, 4])
def test_it_has_the_parameters_of_the_papers_network(layers: int) -> None:
    with torch.device("meta"):
        network = blur(channels=128, num_layers=layers, max_grid=16)
        (logits,) = network(torch.zeros(1, 3, 256, 256))
    assert sum(p.numel() for p in network.parameters()) == {3: 1_909_889, 4: 7_431_297}[layers]
    assert logits.shape == (1, 1, 16, 16)


def by_hand(network: BlurGAN, images: Tensor) -> Tensor:
    w = dict(network.named_parameters())

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.1 * x)

    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=images.dtype)
    x = leaky(F.conv2d(images, w["first.0.weight"], w["first.0.bias"], padding=2))
    for layer in range(2):
        conv, norm = f"layers.{4 * layer}", f"layers.{4 * layer + 2}"
        x = F.conv2d(x, w[f"{conv}.weight"], w[f"{conv}.bias"], padding=1)
        shape = x.shape[:2]
        windows = F.unfold(x, 4, padding=1, stride=2).unflatten(1, (shape[1], 16))
        x = torch.einsum("bckn,k->bcn", windows, torch.outer(taps, taps).flatten() / 64)
        x = x.unflatten(2, (images.shape[2] // 2 ** (layer + 1), -1))
        grouped = x.unflatten(1, (32, -1)).flatten(2)
        mean = grouped.mean(2, keepdim=True)
        variance = ((grouped - mean) ** 2).mean(2, keepdim=True)
        x = ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        x = leaky(x * w[f"{norm}.weight"][:, None, None] + w[f"{norm}.bias"][:, None, None])
    x = F.adaptive_max_pool2d(x, (3, 2))
    x = leaky(F.conv2d(x, w["to_logits.0.weight"], w["to_logits.0.bias"]))
    return F.conv2d(x, w["to_logits.2.weight"], w["to_logits.2.bias"], padding=2)


def test_logits_and_gradients_are_those_of_the_formula() -> None:
    network = blur().double()
    # 16 x 8 px make 4 x 2 positions: rows are pooled to 3 of 2 that overlap, columns are as they
    # are.
    images = torch.randn(2, 3, 16, 8, dtype=torch.float64, requires_grad=True)
    found, expected = network(images)[0], by_hand(network, images)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    inputs = [images, *network.parameters()]
    torch.testing.assert_close(
        grad(found.square().sum(), inputs), grad(expected.square().sum(), inputs)
    )


def test_an_image_needs_a_pixel_for_each_halving() -> None:
    network = blur(num_layers=3)
    assert network(torch.zeros(1, 3, 8, 8))[0].shape == (1, 1, 1, 1)
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 3, 7, 8))


@pytest.mark.parametrize("name", ["channels", "num_layers", "max_grid"])
def test_impossible_sizes_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        blur(**{name: 0})
