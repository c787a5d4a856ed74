"""The error of what changes from frame to frame, which metrics of single frames cannot see."""

from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from vqtrain.metrics.base import SampleMetric, check_pair
from vqtrain.shapes import Pixels


@final
class TemporalError(SampleMetric):
    """The mean absolute error of the differences of successive frames, in levels of 255.

    It is 0 where every frame has the same error, such as a blur of what stands still, and large
    where the error flickers. The sum is exact in integers.

    Example:
        >>> clip = torch.zeros(1, 1, 3, 1, 1, dtype=torch.uint8)
        >>> flicker = torch.tensor([0, 6, 0], dtype=torch.uint8).reshape(clip.shape)
        >>> TemporalError()(flicker, clip), TemporalError()(clip + 9, clip)
        (tensor([6.], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """

    name, title, unit = "temporal_error", "temporal error", "levels"
    higher_is_better = False
    axes, min_frames = 3, 2
    definition = "mean absolute error of the differences of successive frames, in levels of 255"

    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the value of each clip; see ``SampleMetric``."""
        check_pair(self, reconstruction, original)
        errors = reconstruction.to(torch.int64) - original.to(torch.int64)
        changes = errors.diff(dim=2).abs().flatten(1)
        return changes.sum(dim=1).double() / changes.shape[1]
