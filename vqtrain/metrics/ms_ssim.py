"""MS-SSIM: the structural similarity of two images at several scales."""

from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from vqtrain.metrics.base import SampleMetric, check_pair
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
    definition = (
        "Gaussian window of 11 px, sigma 1.5 px, range 255, K1 0.01, K2 0.03, all "
        "channels, five scales with weights 0.0448 0.2856 0.3001 0.2363 0.1333"
    )

    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the value of each image; see ``SampleMetric``."""
        from torchmetrics.functional.image import (  # seconds
            multiscale_structural_similarity_index_measure,
        )

        check_pair(self, reconstruction, original)
        # One by one: a convolution may round an image differently in another batch.
        values = [
            multiscale_structural_similarity_index_measure(
                one[None].double(), other[None].double(), data_range=255.0, normalize="relu"
            )
            for one, other in zip(reconstruction, original, strict=True)
        ]
        return torch.stack(values)
