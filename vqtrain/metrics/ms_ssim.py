"""MS-SSIM: the structural similarity of two images at several scales."""

from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional as F

from vqtrain.metrics.base import SampleMetric
from vqtrain.metrics.parts.structure import WINDOW, of_each, similarity
from vqtrain.shapes import Pixels

# Of the scales, from the finest on.
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


@final
class MSSSIM(SampleMetric):
    """The multi-scale structural similarity of each image, in [0, 1], as in torchmetrics.

    Structure is compared at five scales, each half as fine as the one before, by means of 2 x 2
    pixels; luminance at the coarsest alone. Window and constants are those of SSIM. Negative means
    count as 0.

    References:
        Wang, Simoncelli and Bovik 2003, Multiscale structural similarity for image quality
        assessment. Deviation: on all channels alike, where the paper has luminance only.
    """

    name, title = "ms_ssim", "MS-SSIM"
    higher_is_better = True
    axes, min_size = 2, 176
    definition = f"{WINDOW}, five scales with weights {' '.join(map(str, _WEIGHTS))}"

    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the value of each image; see ``SampleMetric``."""
        return of_each(self, _of_scales, reconstruction, original)


def _of_scales(
    x: Float64[Tensor, "b c h w"], y: Float64[Tensor, "b c h w"]
) -> Float64[Tensor, " b"]:
    product = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for weight in _WEIGHTS[:-1]:
        product *= similarity(x, y)[1].relu() ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product * similarity(x, y)[0].relu() ** _WEIGHTS[-1]
