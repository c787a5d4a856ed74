"""Codebooks inside codebooks."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from vqtrain.build import build
from vqtrain.codebooks.base import Codebook, Folded
from vqtrain.errors import require


def build_inner(inner: Mapping[str, object], size: int, *, calls: int = 1) -> Codebook:
    """Build a codebook for the inside of another one.

    Args:
        inner: ``kind`` and the arguments of that kind. A ``size`` in it must be None.
        size: The size it gets.
        calls: How often one batch uses it.

    Raises:
        ConfigError: If it cannot be built, sets a size of its own, has no ids at each position, or
            takes latents of other channels than its codes have.
    """
    arguments = dict(inner)
    kind, own_size = arguments.pop("kind", None), arguments.pop("size", None)
    require(isinstance(kind, str), f"inner.kind must be the word of a codebook, got {kind!r}")
    require(own_size is None, f"inner.size is set by codebook.size, got {own_size}")
    built = build("codebook", cast(str, kind), {**arguments, "size": size}, where="inner")
    assert isinstance(built, Codebook)
    require(
        built.num_codebooks >= 1 and not built.token_grids and built.grid_unit == 1,
        f"inner.kind={kind} has no ids at each position, so it cannot be inside another codebook",
    )
    require(
        built.in_channels == built.dim,
        f"inner.kind={kind} takes latents of {built.in_channels} channels and gives codes of "
        f"{built.dim}, inside another codebook both must be equal",
    )
    built.repeat(calls)
    return built


def mean_metrics(metrics: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Average scalars of the same name."""
    return {
        name: torch.stack([one[name].double() for one in metrics]).mean() for name in metrics[0]
    }


def fold_inner(outer: Codebook, specification: Mapping[str, object]) -> Folded:
    """Fold a codebook by folding its inner ones, which are all built of its ``inner``."""
    arguments = dict(cast(Mapping[str, object], specification["arguments"]))
    inner = dict(cast(Mapping[str, object], arguments["inner"]))
    built: Mapping[str, object] = {"kind": inner.pop("kind"), "arguments": inner}
    weights, folded = outer.state_dict(), Folded(specification=built, weights={})
    for name, codebook in outer.inner_codebooks().items():
        folded = codebook.folded(built)
        for own in codebook.state_dict():
            del weights[f"{name}.{own}"]
        weights |= {f"{name}.{own}": tensor for own, tensor in folded.weights.items()}
    plain = cast(Mapping[str, object], folded.specification["arguments"])
    arguments["inner"] = {"kind": folded.specification["kind"], **plain}
    return Folded(specification={**specification, "arguments": arguments}, weights=weights)
