"""The distance of mel spectra at several resolutions."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.errors import ConfigError, require
from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.spectral import check_frames
from vqtrain.ops.spectra import SCALES, mel_spectrum, stft
from vqtrain.ranges import FINITE, at_least, checked, one_of, within

# Added to what logarithms are taken of.
FLOOR = 1e-5


@final
class Mel(LossTerm):
    """How far mel spectra are apart, by values and by logarithms, as a mean over resolutions.

    At a resolution it is ``linear`` times the mean of |x - y|, plus ``log`` times the mean of
    |log10(x + 1e-5) - log10(y + 1e-5)| to the power of ``log_power``. Frames overlap by three
    quarters, and have a Hann window.

    Args:
        frames: Length of the frames of each resolution, even numbers.
        mels: Mel filters of each resolution, as many numbers.
        lowest: Frequency at which the first filter begins, in Hz.
        scale: ``htk``, with filters that peak at 1, or ``slaney``, with filters of equal area.
        power: 1 for filters of magnitudes, 2 for those of powers.
        linear: Weight of the difference of values, at least 0.
        log: Weight of the difference of logarithms, at least 0.
        log_power: 1 for their absolute difference, 2 for its square.
        sample_rate: Of the sounds, in Hz.
        sample_size: Of a sample: its length.

    Raises:
        ConfigError: If the samples are no sounds, or an argument does not fit them or the others.

    References:
        Defossez et al. 2022, arXiv:2210.13438 (EnCodec), and its later code for the weights. Kumar
        et al. 2023, arXiv:2306.06546 (DAC), and its code. Deviation: frames are centered, and the
        floor is added, where EnCodec pads less and DAC clamps.
    """

    axes = 1

    @checked
    def __init__(
        self,
        *,
        frames: Sequence[int],
        mels: Sequence[int],
        lowest: Annotated[float, at_least(0), FINITE],
        scale: Annotated[str, one_of(*SCALES)],
        power: Annotated[int, within(1, 2)],
        linear: Annotated[float, at_least(0), FINITE],
        log: Annotated[float, at_least(0), FINITE],
        log_power: Annotated[int, within(1, 2)],
        sample_rate: int | None,
        sample_size: Sequence[int],
    ) -> None:
        super().__init__()
        check_frames(frames, sample_size)
        require(
            len(mels) == len(frames) and min(mels) >= 1,
            f"mels must be one number of at least 1 for each of frames={list(frames)}, got "
            f"{list(mels)}",
        )
        if linear == log == 0:
            raise ConfigError("linear and log must not both be 0")
        if sample_rate is None:
            raise ConfigError("the sample rate of the samples is unknown, and mels depend on it")
        require(
            lowest < sample_rate / 2,
            f"lowest must be below {sample_rate / 2:g} Hz, half the sample rate, got {lowest}",
        )
        self.resolutions = list(zip(frames, mels, strict=True))
        self.lowest, self.scale, self.power = lowest, scale, power
        self.linear, self.log, self.log_power = linear, log, log_power
        self.sample_rate = sample_rate

    def forward(
        self, reconstructions: Float[Tensor, "b c t"], samples: Float[Tensor, "b c t"]
    ) -> Float[Tensor, ""]:
        """Compare sounds."""
        losses = []
        for frame, mels in self.resolutions:
            x, y = (self._spectrum(each, frame, mels) for each in (reconstructions, samples))
            loss = x.new_zeros(())
            if self.linear > 0:
                loss = loss + self.linear * (x - y).abs().mean()
            if self.log > 0:
                difference = ((x + FLOOR).log10() - (y + FLOOR).log10()).abs()
                loss = loss + self.log * (difference**self.log_power).mean()
            losses.append(loss)
        return torch.stack(losses).mean()

    def _spectrum(
        self, samples: Float[Tensor, "b c t"], frame: int, mels: int
    ) -> Float[Tensor, "b c mels n"]:
        return mel_spectrum(
            stft(samples, n_fft=frame, hop=max(1, frame // 4)).abs() ** self.power,
            sample_rate=self.sample_rate,
            mels=mels,
            lowest=self.lowest,
            scale=self.scale,
        )
