"""The 3x3 convolutions next to VAR's codebook, which our 1x1 projections become a part of."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

# What each scale adds to a constant channel: sums of it are exact.
STEP = 2.0**-4

Weights = Mapping[str, Shaped[Tensor, "..."]]


def without_projections(
    own: Weights, *, table: str, smoothing: str, num_scales: int, share: float
) -> dict[str, Shaped[Tensor, "..."]]:
    """Put the projections into the convolutions; latents and codes then have as many channels.

    ``project_in`` comes after a convolution and ``project_out`` before one. The bias of the latter
    is within the border of zeros there, and a bias behind the convolution would not be. So it is
    carried by a channel of the codes that is constant over the grid: zero in the table, so that no
    id depends on it, and a step at each scale from the convolution that smooths the scale.

    Args:
        own: Our weights.
        table: Name of the codes.
        smoothing: How names of the convolutions that smooth scales begin.
        num_scales: Scales of the codebook.
        share: Weight of the output of those convolutions.
    """
    wide = {name: item.double() for name, item in own.items()}
    inner, inner_bias = _projection(wide, "project_in")
    outer, outer_bias = _projection(wide, "project_out")
    before, before_bias = _convolution(wide, "encoder.quant_conv", inner.shape[1])
    after, after_bias = _convolution(wide, "decoder.post_quant_conv", len(outer))
    into = torch.einsum("nl,lm...->nm...", inner, before)
    out = torch.einsum("lm...,mn->ln...", after, outer)
    carried = torch.einsum("lm...,m->l...", after, outer_bias)
    around = carried.clone()
    around[:, 1, 1] = 0
    dim, is_carried = out.shape[1], bool(around.any())
    if is_carried:
        out = torch.cat([out, carried[:, None] / (num_scales * STEP)], dim=1)
    else:
        after_bias = after_bias + carried[:, 1, 1]
    channels = max(len(outer), out.shape[1])
    changed = {name: item for name, item in own.items() if not name.startswith("project_")}
    changed |= {
        table: _grown(wide[table], len(wide[table]), channels),
        "encoder.quant_conv.weight": _grown(into, channels, channels),
        "encoder.quant_conv.bias": _grown(inner @ before_bias + inner_bias, channels),
        "decoder.post_quant_conv.weight": _grown(out, channels, channels),
        "decoder.post_quant_conv.bias": _grown(after_bias, channels),
        "decoder.conv_in.weight": _grown(
            wide["decoder.conv_in.weight"], len(own["decoder.conv_in.weight"]), channels
        ),
    }
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias"):
        changed[name] = _grown(wide[name], channels)
    for name in (name for name in own if name.startswith(smoothing)):
        changed[name] = _grown(wide[name], *(channels,) * min(2, wide[name].ndim))
        if is_carried and name.endswith("bias"):
            changed[name][dim] = STEP / share
    return changed


def _projection(
    weights: Weights, name: str
) -> tuple[Float64[Tensor, "out in"], Float64[Tensor, " out"]]:
    return weights[f"{name}.weight"][:, :, 0, 0], weights[f"{name}.bias"]


def _convolution(
    weights: Weights, name: str, channels: int
) -> tuple[Float64[Tensor, "c c 3 3"], Float64[Tensor, " c"]]:
    """Return a convolution, or if there is none one that changes nothing."""
    if f"{name}.weight" in weights:
        return weights[f"{name}.weight"], weights[f"{name}.bias"]
    same = torch.empty(channels, channels, 3, 3, dtype=torch.float64)
    return nn.init.dirac_(same), same.new_zeros(channels)


def _grown(tensor: Float[Tensor, "..."], *sizes: int) -> Float[Tensor, "..."]:
    """Return a tensor with zeros behind, up to sizes of its first axes."""
    grown = tensor.new_zeros(*sizes, *tensor.shape[len(sizes) :])
    grown[tuple(slice(size) for size in tensor.shape[: len(sizes)])] = tensor
    return grown
