"""PSNR: the peak signal-to-noise ratio."""

from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from vqtrain.metrics.base import SampleMetric, check_pair
from vqtrain.shapes import Pixels


@final
class PSNR(SampleMetric):
    """The peak signal-to-noise ratio of each sample, in dB, at most 100; of clips frame by frame.

    torchmetrics takes its logarithm in float32, and so has eight digits. This one is exact in
    float64, and the sum of squares is exact in integers: the order, the device and the batch do
    not matter.

    Example:
        >>> original = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
        >>> PSNR()(original + 255, original), PSNR()(original, original)
        (tensor([0.], dtype=torch.float64), tensor([100.], dtype=torch.float64))
    """

    name, title, unit = "psnr", "PSNR", "dB"
    higher_is_better = True
    by_frame = True
    # The PSNR of two equal samples is infinite, and would spoil every mean.
    maximum = 100.0
    definition = "10 log10(255^2 / mean square), in dB, at most 100"

    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the value of each sample; see ``SampleMetric``."""
        check_pair(self, reconstruction, original)
        difference = reconstruction.to(torch.int64) - original.to(torch.int64)
        total = difference.square().flatten(1).sum(dim=1)
        mean_square = total.double() / difference[0].numel()
        return (10.0 * torch.log10(255.0**2 / mean_square)).clamp(max=self.maximum)
