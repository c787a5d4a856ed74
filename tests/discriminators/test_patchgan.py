"""The patch discriminator against sizes and formulas of the papers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.errors import ConfigError

NORMS = ["none", "group", "batch", "spectral"]


def patchgan(**changes: object) -> PatchGAN:
    arguments = {"in_channels": 3, "channels": 8, "num_layers": 3, "norm": "group", **changes}
    return PatchGAN(**arguments)  # type: ignore[arg-type]  # plain data


def test_it_has_the_parameters_of_the_papers_network() -> None:
    # 4 x 4 kernels. 3 -> 64 with a bias; 64 -> 128 -> 256 -> 512 without one, each with a scale and
    # a shift; 512 -> 1 with a bias.
    expected = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    expected += 2 * (128 + 256 + 512)
    for norm in ("batch", "group"):
        network = patchgan(channels=64, norm=norm)
        assert sum(p.numel() for p in network.parameters()) == expected == 2_765_633
    assert len(list(patchgan(norm="batch").buffers())) == 0


@pytest.mark.parametrize("norm", NORMS)
def test_a_logit_sees_seventy_pixels_of_the_one_image(norm: str) -> None:
    network = patchgan(norm=norm)
    if norm in ("group", "batch"):  # their statistics see the whole image
        for module in network.modules():
            if isinstance(module, nn.GroupNorm | nn.BatchNorm2d):
                module.forward = lambda x: x  # type: ignore[method-assign]  # out of the way
    image = torch.randn(1, 3, 128, 128, requires_grad=True)
    (logits,) = network(image)
    # 128 -> 64 -> 32 -> 16, and 15 and 14 by the two of stride 1.
    assert logits.shape == (1, 1, 14, 14)
    logits[0, 0, 7, 7].backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0)
    rows, columns = (seen.sum(1) > 0).sum().item(), (seen.sum(0) > 0).sum().item()
    assert (rows, columns) == (70, 70)


def test_widths_stop_doubling_at_eight_times() -> None:
    widths = [m.out_channels for m in patchgan(num_layers=5).modules() if isinstance(m, nn.Conv2d)]
    assert widths == [8, 16, 32, 64, 64, 64, 1]


def test_it_is_the_stack_of_the_paper() -> None:
    network = patchgan(num_layers=1, norm="none")
    first, second, third = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    x = torch.randn(2, 3, 16, 16)
    y = F.leaky_relu(F.conv2d(x, first.weight, first.bias, stride=2, padding=1), 0.2)
    y = F.leaky_relu(F.conv2d(y, second.weight, second.bias, padding=1), 0.2)
    y = F.conv2d(y, third.weight, third.bias, padding=1)
    torch.testing.assert_close(network(x), [y])


def test_convolutions_start_with_a_deviation_of_two_hundredths() -> None:
    network = patchgan(channels=64, norm="batch")
    weights = torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d)])
    scales = torch.cat(
        [m.weight.flatten() for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    )
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert (scales.mean().item(), scales.std().item()) == pytest.approx((1.0, 0.02), abs=3e-3)


def test_spectral_norm_bounds_each_convolution() -> None:
    network = patchgan(norm="spectral")
    for _ in range(200):  # each forward improves its estimate
        network(torch.zeros(1, 3, 32, 32))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            norm = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2)
            assert norm.item() == pytest.approx(1.0, rel=1e-3)


def test_batch_norm_needs_two_images() -> None:
    assert [patchgan(norm=norm).least_batch_size for norm in NORMS] == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "layer"}, "norm must be one of none, group, batch, spectral, got 'layer'"),
        ({"num_layers": 0}, "num_layers must be at least 1, got 0"),
        ({"channels": 0}, "channels must be at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        patchgan(**changes)
