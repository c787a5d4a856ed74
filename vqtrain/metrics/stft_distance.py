"""The distance of spectra of two sounds."""

from typing import final

from jaxtyping import Float64
from torch import Tensor

from vqtrain.metrics.parts.spectral import SpectralDistance


@final
class STFTDistance(SpectralDistance):
    """The distance of the short-time spectra of each sound, which ignores phase.

    References:
        Kumar et al. 2023, arXiv:2306.06546 (DAC), its code: the STFT distance of its tables.
    """

    name, title = "stft_distance", "STFT distance"
    definition = (
        "mean absolute difference of magnitudes plus that of log10 of their squares, at least "
        "1e-10; Hann windows of 2,048 and 512 samples, hop a quarter, summed"
    )

    def spectrum(
        self, magnitudes: Float64[Tensor, "b c frequencies frames"], n_fft: int
    ) -> Float64[Tensor, "b c values frames"]:
        """Return the magnitudes."""
        del n_fft
        return magnitudes
