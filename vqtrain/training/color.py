"""A hint for reconstructions that have lost their color."""

from typing import final

import torch

from vqtrain.metrics.chroma_error import ChromaError
from vqtrain.shapes import Pixels

# Validations in a row before the hint: most runs learn light first and color later.
VALIDATIONS_BEFORE_HINT = 2
# Mean chroma in levels below which images are taken for gray.
LEAST_CHROMA = 2.0
# Share of the images' chroma below which that of the reconstructions is lost.
LOST_BELOW = 0.25


@final
class ColorHint:
    """Notices reconstructions with hardly any color, once until they have it again."""

    def __init__(self) -> None:
        self.validations = 0

    def of(self, reconstructions: Pixels, originals: Pixels) -> str | None:
        """Return a hint, or None if the color is there or its loss has been reported.

        Args:
            reconstructions: Some of a validation.
            originals: What they are of.
        """
        if originals.shape[1] != 3 or not len(originals):
            return None
        wanted, found = (mean_chroma(each) for each in (originals, reconstructions))
        is_lost = wanted >= LEAST_CHROMA and found < LOST_BELOW * wanted
        self.validations = self.validations + 1 if is_lost else 0
        if self.validations != VALIDATIONS_BEFORE_HINT:
            return None
        return (
            f"hint: the reconstructions are nearly gray: their mean chroma is {found:.1f} levels, "
            f"that of the images {wanted:.1f}. PSNR hides it: metrics=[psnr,ssim,chroma_error] "
            "measures it. What helps: more steps, a higher optim.lr, more tokens or codes, and an "
            "adversarial or perceptual loss that starts later or weighs less"
        )


def mean_chroma(pixels: Pixels) -> float:
    """Return the mean distance of Cb and Cr from gray, in levels."""
    return ChromaError()(pixels, torch.zeros_like(pixels)).mean().item()
