"""The residual block of VideoGPT against its formula, and its padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.layers.axial import AxialBlock, SameConv, SameTransposedConv, strides


def attend(w: dict[str, Tensor], name: str, x: Tensor, axis: int) -> Tensor:
    """Attention of 2 heads along one axis of [b, c, t, h, w], position by position."""
    q, k, v = (
        torch.einsum("dc,bcthw->bdthw", w[f"{name}.{key}.weight"], x).unflatten(1, (2, -1))
        for key in ("w_qs", "w_ks", "w_vs")
    )
    out = torch.zeros_like(v)
    for i in range(x.shape[2 + axis]):
        at = [slice(None)] * 6
        at[3 + axis] = slice(i, i + 1)
        scores = (q[tuple(at)] * k).sum(2, keepdim=True) / q.shape[2] ** 0.5
        out[tuple(at)] = (scores.softmax(3 + axis) * v).sum(3 + axis, keepdim=True)
    joined = out.flatten(1, 2)
    bias = w[f"{name}.fc.bias"][None, :, None, None, None]
    return torch.einsum("dc,bcthw->bdthw", w[f"{name}.fc.weight"], joined) + bias


@pytest.mark.parametrize("training", [True, False])
def test_block_equals_its_formula(training: bool) -> None:
    block = AxialBlock(8).double().train(training)
    w = dict(block.named_parameters())
    for name, parameter in w.items():
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("weight") else 0.0, 0.3)
    for buffer in block.buffers():
        torch.nn.init.uniform_(buffer, 0.5, 1.5)
    running = {name: buffer.clone() for name, buffer in block.named_buffers()}

    def normed(name: str, h: Tensor) -> Tensor:
        if training:
            mean, var = h.mean((0, 2, 3, 4)), h.var((0, 2, 3, 4), unbiased=False)
        else:
            mean, var = running[f"{name}.running_mean"], running[f"{name}.running_var"]
        shaped = [
            each[None, :, None, None, None]
            for each in (mean, var, w[f"{name}.weight"], w[f"{name}.bias"])
        ]
        return ((h - shaped[0]) / (shaped[1] + 1e-5).sqrt() * shaped[2] + shaped[3]).relu()

    x = torch.randn(2, 8, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    h = F.conv3d(normed("before.0", x), w["before.2.conv.weight"], padding=1)
    h = F.conv3d(normed("before.3", h), w["before.5.conv.weight"])
    h = normed("before.6", h)
    wanted = x + sum(attend(w, f"attention.{axis}", h, axis) for axis in range(3))
    found = block(x)
    torch.testing.assert_close(found, wanted)
    gradients = [torch.autograd.grad(y.pow(3).sum(), x)[0] for y in (found, wanted)]
    torch.testing.assert_close(*gradients)


def test_padding_is_larger_before_than_behind_and_strides_halve_what_is_left() -> None:
    # k - s values in all: 3 before and behind for stride 1, so 2 and 1; for stride 2, 1 and 1.
    x = torch.randn(1, 2, 4, 4, 4)
    conv = SameConv(2, 3, 4, (1, 2, 2))
    padded = F.pad(x, (1, 1, 1, 1, 2, 1))
    wanted = F.conv3d(padded, conv.conv.weight, conv.conv.bias, stride=(1, 2, 2))
    torch.testing.assert_close(conv(x), wanted)
    # The transposed one is the adjoint of a convolution, of which 3 outputs are cut off each side.
    up = SameTransposedConv(2, 3, 4, (1, 2, 2))
    whole = F.conv_transpose3d(padded, up.convt.weight, up.convt.bias, stride=(1, 2, 2))
    torch.testing.assert_close(up(x), whole[:, :, 3:-3, 3:-3, 3:-3])
    assert up(x).shape == (1, 3, 4, 8, 8)
    assert strides((2, 8, 1)) == [(2, 2, 1), (1, 2, 1), (1, 2, 1)]
