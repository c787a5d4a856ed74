"""SSIM: the structural similarity of two images."""

from typing import final

from jaxtyping import Float64
from torch import Tensor

from vqtrain.metrics.base import SampleMetric
from vqtrain.metrics.parts.structure import WINDOW, of_each, similarity
from vqtrain.shapes import Pixels


@final
class SSIM(SampleMetric):
    """The structural similarity of each image, in [-1, 1], as in torchmetrics.

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
    definition = f"{WINDOW}, mirrored border"

    def __call__(self, reconstruction: Pixels, original: Pixels) -> Float64[Tensor, " b"]:
        """Return the value of each image; see ``SampleMetric``."""
        return of_each(self, lambda x, y: similarity(x, y)[0], reconstruction, original)
