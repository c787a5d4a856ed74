"""SSIM: the structural similarity of two images."""

from typing import final

import torch
from jaxtyping import Float64
from torch import Tensor

from vqtrain.metrics.base import SampleMetric, check_pair
from vqtrain.shapes import Pixels


@final
class SSIM(SampleMetric):
    """The structural similarity of each image, in [-1, 1], as torchmetrics computes it.

    The window is a Gaussian of 11 px with sigma 1.5 px; K1 is 0.01 and K2 is 0.03. The mean is over
    channels and all positions; pixels are mirrored at the border to fill the window. scikit-image
    leaves out the positions at the border, so its mean differs.

    References:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity.
        Deviation: on all channels alike, where the paper has luminance only.
    """

    name, title = "ssim", "SSIM"
    higher_is_better = True
    axes, min_size = 2, 11
    package = "torchmetrics"
    definition = (
        "Gaussian window of 11 px, sigma 1.5 px, range 255, K1 0.01, K2 0.03, all "
        "channels, mirrored border"
    )

    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the value of each image; see ``SampleMetric``."""
        from torchmetrics.functional.image import structural_similarity_index_measure  # seconds

        check_pair(self, reconstruction, original)
        # One by one: a convolution may round an image differently in another batch.
        values = [
            structural_similarity_index_measure(
                one[None].double(), other[None].double(), data_range=255.0
            )
            for one, other in zip(reconstruction, original, strict=True)
        ]
        assert all(isinstance(value, Tensor) for value in values), "no full image is asked for"
        return torch.stack(values)  # type: ignore[arg-type]  # asserted
