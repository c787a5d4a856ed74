"""SI-SDR: the scale-invariant signal-to-distortion ratio."""

from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vqtrain.metrics.base import UNROUNDED, SampleMetric, check_pair


@final
class SISDR(SampleMetric):
    """The scale-invariant signal-to-distortion ratio of each sound, in dB, from -30 to 100.

    The signal is the original times the factor that brings it nearest to the reconstruction, and
    the distortion is the rest; a sound of several channels has their mean. It compares waveforms,
    so it punishes a shift of phase that nobody hears: read it beside a distance of spectra.

    As in torchmetrics without ``zero_mean``, within the bounds. Beyond them its constant against a
    division by 0 decides: 150 dB of two equal sounds, and 0 dB of a reconstruction that is silent.

    References:
        Le Roux et al. 2018, arXiv:1811.02508, equation 5.

    Example:
        >>> original = torch.tensor([[[1.0, 1.0]]])
        >>> SISDR()(torch.tensor([[[3.0, 1.0]]]), original)  # 2 (1, 1) and (1, -1): 10 log10 4
        tensor([6.0206], dtype=torch.float64)
        >>> SISDR()(original / 2, original), SISDR()(original * 0, original)
        (tensor([100.], dtype=torch.float64), tensor([-30.], dtype=torch.float64))
    """

    name, title, unit = "si_sdr", "SI-SDR", "dB"
    higher_is_better = True
    axes, takes_levels, rounding = 1, False, UNROUNDED
    # A silent original has no ratio, and would spoil every mean.
    minimum, maximum = -30.0, 100.0
    definition = (
        "10 log10 of the energy of the scaled original over that of the rest, per channel without "
        "removing means, in dB, from -30 to 100"
    )

    def __call__(
        self, reconstruction: Float[Tensor, "b c t"], original: Float[Tensor, "b c t"]
    ) -> Float64[Tensor, " b"]:
        """Return the value of each sound; see ``SampleMetric``."""
        check_pair(self, reconstruction, original)
        estimate, target = reconstruction.double(), original.double()
        own = target.square().sum(-1).clamp(min=torch.finfo(torch.float64).tiny)
        signal = ((estimate * target).sum(-1) / own)[..., None] * target
        energy, rest = signal.square().sum(-1), (estimate - signal).square().sum(-1)
        ratio = (10 * (energy / rest).log10()).clamp(self.minimum, self.maximum)
        # Both are 0 of a silent reconstruction, and of a silent original that is kept.
        ratio = torch.where(energy > 0, ratio, self.minimum)
        return torch.where((estimate == target).all(-1), self.maximum, ratio).mean(-1)
