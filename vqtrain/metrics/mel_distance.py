"""The distance of mel spectra of two sounds."""

from typing import final

from jaxtyping import Float64
from torch import Tensor

from vqtrain.errors import require
from vqtrain.metrics.parts.spectral import FRAMES, SpectralDistance
from vqtrain.ops.spectra import mel_spectrum

MELS = dict(zip(FRAMES, (150, 80), strict=True))


@final
class MelDistance(SpectralDistance):
    """The distance of the mel spectra of each sound: closer to hearing than that of all spectra.

    References:
        Kumar et al. 2023, arXiv:2306.06546 (DAC), its code: the mel distance of its tables.
    """

    name, title = "mel_distance", "mel distance"
    definition = (
        "mean absolute difference of mel magnitudes plus that of log10 of their squares, at least "
        "1e-10; Hann windows of 2,048 and 512 samples with 150 and 80 mels (Slaney's), hop a "
        "quarter, summed"
    )

    def spectrum(
        self, magnitudes: Float64[Tensor, "b c frequencies frames"], n_fft: int
    ) -> Float64[Tensor, "b c values frames"]:
        """Return the mel magnitudes."""
        rate = self.sample_rate
        require(rate is not None, "mel_distance needs the sample rate of sounds, which is unknown")
        assert rate is not None
        return mel_spectrum(magnitudes, sample_rate=rate, mels=MELS[n_fft], scale="slaney")
