"""Codebooks inside codebooks: built from plain data, and told how often a batch uses them."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from vqtrain.build import build
from vqtrain.errors import require
from vqtrain.layers.step_state import StepState


def build_inner(inner: Mapping[str, object], size: int) -> nn.Module:
    """Build a codebook for the inside of another one.

    Args:
        inner: ``kind`` and the arguments of that kind. A ``size`` in it must be None.
        size: The size it gets.

    Raises:
        ConfigError: If it cannot be built, or sets a size of its own.
    """
    arguments = dict(inner)
    kind, own_size = arguments.pop("kind", None), arguments.pop("size", None)
    require(isinstance(kind, str), f"inner.kind must be the word of a codebook, got {kind!r}")
    require(own_size is None, f"inner.size is set by codebook.size, got {own_size}")
    built = build("codebook", cast(str, kind), {**arguments, "size": size})
    assert isinstance(built, nn.Module)
    return built


def used_times(module: nn.Module, calls: int) -> None:
    """Tell a codebook that one batch uses it several times."""
    for state in module.modules():
        if isinstance(state, StepState):
            state.calls *= calls


def mean_metrics(metrics: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Average scalars of the same name."""
    return {
        name: torch.stack([one[name].double() for one in metrics]).mean() for name in metrics[0]
    }
