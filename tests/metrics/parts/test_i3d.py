"""I3D against a formula in the terms of TensorFlow, and the published names and counts."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vqtrain.metrics.parts.i3d import I3D

# Names, and strides along time and along the sides, in the order of figure 3 of the paper.
STRIDES = {
    "Conv3d_1a_7x7": (2, 2),
    "MaxPool3d_2a_3x3": (1, 2),
    "Conv3d_2b_1x1": (1, 1),
    "Conv3d_2c_3x3": (1, 1),
    "MaxPool3d_3a_3x3": (1, 2),
    "Mixed_3b": (1, 1),
    "Mixed_3c": (1, 1),
    "MaxPool3d_4a_3x3": (2, 2),
    **{f"Mixed_4{letter}": (1, 1) for letter in "bcdef"},
    "MaxPool3d_5a_2x2": (2, 2),
    "Mixed_5b": (1, 1),
    "Mixed_5c": (1, 1),
}


def same(x: Tensor, kernel: list[int], stride: list[int], value: float) -> Tensor:
    """Pad as TensorFlow's SAME does: for ceil(n / stride) outputs, the larger half last."""
    widths: list[int] = []
    for side, own, step in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(0, (math.ceil(side / step) - 1) * step + own - side)
        widths = [total // 2, math.ceil(total / 2), *widths]
    return F.pad(x, widths, value=value)


def formula(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    def unit(x: Tensor, name: str, stride: list[int]) -> Tensor:
        kernel = weights[f"{name}.conv3d.weight"]
        x = F.conv3d(same(x, list(kernel.shape[2:]), stride, 0.0), kernel, stride=stride)
        mean, var, scale, shift = (
            weights[f"{name}.bn.{word}"][:, None, None, None]
            for word in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)

    def pool(x: Tensor, kernel: list[int], stride: list[int]) -> Tensor:
        return F.max_pool3d(same(x, kernel, stride, -math.inf), kernel, stride)

    one = [1, 1, 1]
    for name, (time, space) in STRIDES.items():
        stride = [time, space, space]
        if name.startswith("Conv"):
            x = unit(x, name, stride)
        elif name.startswith("MaxPool"):
            # Windows of 3 along the sides, and along time where it is subsampled; the last of 2.
            side = 2 if name.endswith("2x2") else 3
            x = pool(x, [side if time == 2 else 1, side, side], stride)
        else:
            second = unit(unit(x, f"{name}.b1a", one), f"{name}.b1b", one)
            third = unit(unit(x, f"{name}.b2a", one), f"{name}.b2b", one)
            last = unit(pool(x, [3, 3, 3], one), f"{name}.b3b", one)
            x = torch.cat([unit(x, f"{name}.b0", one), second, third, last], 1)
    return x


def test_it_is_the_network_of_the_paper() -> None:
    network = I3D().double()
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.ndim == 5:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif tensor.is_floating_point():
            tensor.uniform_(0.1, 1, generator=generator)
    assert sum(p.numel() for p in network.parameters()) == 12_697_264  # published as 12.7 M
    weights = {k: v for k, v in network.state_dict().items() if not k.endswith("tracked")}
    assert len(weights) == 57 * 5 + 2
    *trunk, logits = network.children()
    clip = torch.rand(1, 3, 11, 35, 40, generator=generator).double() * 2 - 1
    with torch.no_grad():
        found = clip
        for layer in trunk:
            found = layer(found)
        expected = formula(weights, clip)
        # 11 -> 6 -> 3 -> 2 frames; 35 -> 18 -> 9 -> 5 -> 3 -> 2 rows, and 40 -> 20 -> ... -> 2.
        assert found.shape == (1, 1024, 2, 2, 2)
        torch.testing.assert_close(found, expected)
        maps = torch.rand(2, 1024, 3, 7, 7, generator=generator).double()
        # Of 3 moments the windows of 2 are two.
        pooled = torch.stack([maps[:, :, k : k + 2].mean((2, 3, 4)) for k in (0, 1)]).mean(0)
        linear = weights["logits.conv3d.weight"][:, :, 0, 0, 0], weights["logits.conv3d.bias"]
        torch.testing.assert_close(logits(maps), F.linear(pooled, *linear))
