"""Distances of spectra, as several metrics use them.

They are those of the evaluation of DAC (arXiv:2306.06546, its code): frames of 2,048 and of 512
samples with a hop of a quarter, whose distances add up.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vqtrain.metrics.base import UNROUNDED, SampleMetric, check_pair
from vqtrain.ops.spectra import stft

FRAMES = (2048, 512)
FLOOR = 1e-5


class SpectralDistance(SampleMetric, ABC):
    """The distance of spectra, by their values and by their logarithms.

    It is the mean absolute difference of magnitudes plus that of log10 of their squares, where
    magnitudes below 1e-5 count as 1e-5, summed over both lengths of frames.
    """

    higher_is_better = False
    axes, min_size = 1, FRAMES[0] // 2 + 1
    takes_levels, rounding = False, UNROUNDED

    @abstractmethod
    def spectrum(
        self, magnitudes: Float64[Tensor, "b c frequencies frames"], n_fft: int
    ) -> Float64[Tensor, "b c values frames"]:
        """Return what is compared, of the magnitudes of frames of a length."""

    def __call__(
        self, reconstruction: Float[Tensor, "b c t"], original: Float[Tensor, "b c t"]
    ) -> Float64[Tensor, " b"]:
        """Return the value of each sound; see ``SampleMetric``."""
        check_pair(self, reconstruction, original)
        total = original.new_zeros(len(original), dtype=torch.float64)
        for n_fft in FRAMES:
            x, y = (
                self.spectrum(stft(each.double(), n_fft=n_fft, hop=n_fft // 4).abs(), n_fft)
                for each in (reconstruction, original)
            )
            x_log, y_log = (2 * each.clamp(min=FLOOR).log10() for each in (x, y))
            total += (x - y).abs().flatten(1).mean(1) + (x_log - y_log).abs().flatten(1).mean(1)
        return total
