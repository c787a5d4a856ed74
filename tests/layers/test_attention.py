"""Attention against the softmax written out from its raw weights."""

import torch
from torch import Tensor

from vqtrain.layers.attention import SpatialAttention


def attended(x: Tensor, w: dict[str, Tensor], groups: int) -> Tensor:
    """One image [c, h, w] at a time, position by position."""
    channels = x.shape[0]
    flat = x.reshape(groups, -1)
    mean, variance = flat.mean(dim=1, keepdim=True), flat.var(dim=1, keepdim=True, unbiased=False)
    unit = ((flat - mean) / (variance + 1e-6).sqrt()).reshape(channels, -1)
    normed = unit * w["norm.weight"][:, None] + w["norm.bias"][:, None]
    q, k, v = (
        w[f"{name}.weight"][:, :, 0, 0] @ normed + w[f"{name}.bias"][:, None] for name in "qkv"
    )
    columns = []
    for position in range(q.shape[1]):
        scores = torch.stack([q[:, position] @ k[:, other] for other in range(k.shape[1])])
        weights = torch.exp(scores / channels**0.5)
        columns.append(v @ (weights / weights.sum()))
    gathered = torch.stack(columns, dim=1)
    projected = w["proj_out.weight"][:, :, 0, 0] @ gathered + w["proj_out.bias"][:, None]
    return x + projected.reshape(x.shape)


def test_attention_equals_the_formula() -> None:
    torch.manual_seed(0)
    attention = SpatialAttention(channels=64).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(std=0.3)
    x = torch.randn(2, 64, 3, 4, dtype=torch.float64)
    expected = torch.stack([attended(image, attention.state_dict(), groups=32) for image in x])
    torch.testing.assert_close(attention(x), expected)


def test_attention_does_not_mix_images() -> None:
    attention = SpatialAttention(channels=8)
    x = torch.randn(2, 8, 2, 2)
    torch.testing.assert_close(attention(x)[:1], attention(x[:1]))
