"""Tokenizers of older versions, converted to the form of this version."""

from typing import Any

import torch
from torch import Tensor

FORMAT_VERSION = 2


def migrated(
    config: dict[str, Any], weights: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return configuration and weights in the form of this version.

    Args:
        config: With a ``format_version`` from 1 to ``FORMAT_VERSION``.
        weights: By their names in that version.
    """
    if config["format_version"] == 1:
        config, weights = from_version_1(config, weights)
    return config, weights


def from_version_1(
    config: dict[str, Any], weights: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Add later arguments of ``vq`` and ``ema``, with the values of their former behavior."""
    codebook = config["codebook"]
    added: dict[str, object] = {}
    if codebook["kind"] in ("vq", "ema"):
        added = {"gradient": "straight_through", "kmeans_iterations": 0}
        added |= {"sampling_temperature": 0.0}
    if codebook["kind"] == "ema":
        added |= {"l2_normalize": False}
    if codebook["kind"] == "vq":
        added |= {"decay": 0.95, "restart_below": 0.0}
        added |= {"entropy_weight": 0.0, "entropy_temperature": 0.01}
        vectors = weights.get("codebook.vectors", torch.empty(0))
        weights = {**weights, "codebook.average_counts": torch.ones(len(vectors))}
    arguments = {**added, **codebook["arguments"]}
    return {**config, "codebook": {**codebook, "arguments": arguments}}, weights
