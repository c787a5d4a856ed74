"""The error of colors alone, which PSNR hides: a gray photograph may lack 1 dB."""

from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from vqtrain.metrics.base import SampleMetric, check_pair
from vqtrain.shapes import Pixels


@final
class ChromaError(SampleMetric):
    """The mean absolute difference of Cb and Cr, in levels of 255.

    Cb and Cr are those of ITU-R BT.601 in full range, as in JPEG: with Y = 0.299 R + 0.587 G +
    0.114 B they are (B - Y) / 1.772 and (R - Y) / 1.402, not rounded. Sums are exact in integers:
    the order, the device and the batch do not matter.

    Example:
        >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)
        >>> ChromaError()(torch.full_like(red, 76), red).round(decimals=2)  # gray of the same Y
        tensor([85.2600], dtype=torch.float64)
    """

    name, title, unit = "chroma_error", "chroma error", "levels"
    higher_is_better = False
    channels, by_frame = (3,), True
    definition = (
        "mean absolute difference of Cb and Cr (ITU-R BT.601, full range), in levels of 255"
    )

    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the value of each sample; see ``SampleMetric``."""
        check_pair(self, reconstruction, original)
        difference = reconstruction.to(torch.int64) - original.to(torch.int64)
        red, green, blue = difference.flatten(2).unbind(1)
        luma = 299 * red + 587 * green + 114 * blue  # of thousandths
        blue_sum = (1000 * blue - luma).abs().sum(dim=1).double() / 1772
        red_sum = (1000 * red - luma).abs().sum(dim=1).double() / 1402
        return (blue_sum + red_sum) / (2 * red.shape[1])
