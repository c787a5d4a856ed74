"""Metrics of images on the frames of clips."""

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from vqtrain.metrics.base import SampleMetric


def frame_values(
    metric: SampleMetric,
    reconstruction: Shaped[Tensor, "b c t h w"],
    original: Shaped[Tensor, "b c t h w"],
) -> Float64[Tensor, "b t"]:
    """Return the value of each frame of each clip; see ``SampleMetric``."""
    pairs = zip(reconstruction.transpose(1, 2), original.transpose(1, 2), strict=True)
    # One clip at a time: the frames of all are a large batch for a network.
    return torch.stack([metric(*(each.contiguous() for each in pair)) for pair in pairs])
