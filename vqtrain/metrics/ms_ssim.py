"""MS-SSIM: the structural similarity of two images at several scales."""

from typing import final

from jaxtyping import Float64
from torch import Tensor

from vqtrain.metrics.base import SampleMetric
from vqtrain.metrics.parts.structure import WINDOW, of_each
from vqtrain.shapes import Pixels


@final
class MSSSIM(SampleMetric):
    """The multi-scale structural similarity of each image, in [0, 1], as torchmetrics computes it.

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
    package = "torchmetrics"
    definition = f"{WINDOW}, five scales with weights 0.0448 0.2856 0.3001 0.2363 0.1333"

    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the value of each image; see ``SampleMetric``."""
        from torchmetrics.functional.image import (  # seconds
            multiscale_structural_similarity_index_measure,
        )

        measure = multiscale_structural_similarity_index_measure
        return of_each(self, measure, reconstruction, original, normalize="relu")
