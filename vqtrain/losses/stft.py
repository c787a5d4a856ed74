"""The distance of spectra at several resolutions."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.errors import ConfigError, require
from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.spectral import check_frames
from vqtrain.ops.spectra import stft
from vqtrain.ranges import FINITE, at_least, checked

# Magnitudes below its root count as the root in logarithms.
FLOOR = 1e-7
# A sound counts as no quieter than noise of this root mean square where its norm divides.
QUIET = 1e-3


@final
class STFT(LossTerm):
    """How far magnitudes of short-time spectra are apart, as a mean over resolutions.

    At a resolution it is ``convergence`` times ||x - y|| / ||y||, over all frequencies and frames
    of a sound, plus ``log`` times the mean of |log x - log y|, with natural logarithms.

    Args:
        frames: Length of the frames of each resolution, even numbers.
        hops: Samples from one of them to the next, as many.
        windows: Lengths of the Hann windows within them, as many.
        convergence: Weight of the spectral convergence, at least 0.
        relative: Whether to divide the norm of the difference by that of the sample.
        log: Weight of the difference of logarithms, at least 0.
        sample_size: Of a sample: its length.

    Raises:
        ConfigError: If the samples are no sounds, or an argument does not fit them or the others.

    References:
        Yamamoto et al. 2020, arXiv:1910.11480 (Parallel WaveGAN). Deviation: norms are of each
        sound, where those of its code are of a batch, and that of a sound below -60 dB is raised.
        Dhariwal et al. 2020, arXiv:2005.00341 (Jukebox): without ``relative``, and with ``log`` 0.
        Deviation: it is not divided by the bandwidth of the data, by which the weight may be.
    """

    axes = 1

    @checked
    def __init__(
        self,
        *,
        frames: Sequence[int],
        hops: Sequence[int],
        windows: Sequence[int],
        convergence: Annotated[float, at_least(0), FINITE],
        relative: bool,
        log: Annotated[float, at_least(0), FINITE],
        sample_size: Sequence[int],
    ) -> None:
        super().__init__()
        check_frames(frames, sample_size)
        for name, each in (("hops", hops), ("windows", windows)):
            fit = len(each) == len(frames) and all(
                1 <= n <= frame for n, frame in zip(each, frames, strict=False)
            )
            require(
                fit,
                f"{name} must be one number for each of frames={list(frames)}, from 1 up to it, "
                f"got {list(each)}",
            )
        if convergence == log == 0:
            raise ConfigError("convergence and log must not both be 0")
        self.resolutions = list(zip(frames, hops, windows, strict=True))
        self.convergence, self.relative, self.log = convergence, relative, log

    def forward(
        self, reconstructions: Float[Tensor, "b c t"], samples: Float[Tensor, "b c t"]
    ) -> Float[Tensor, ""]:
        """Compare sounds."""
        losses = [self._at(reconstructions, samples, *each) for each in self.resolutions]
        return torch.stack(losses).mean()

    def _at(
        self,
        reconstructions: Float[Tensor, "b c t"],
        samples: Float[Tensor, "b c t"],
        frame: int,
        hop: int,
        window: int,
    ) -> Float[Tensor, ""]:
        x, y = (
            stft(each, n_fft=frame, hop=hop, window=window).abs()
            for each in (reconstructions, samples)
        )
        loss = x.new_zeros(())
        if self.convergence > 0:
            distance = torch.linalg.vector_norm(x - y, dim=(1, 2, 3))
            if self.relative:
                # Of white noise: each magnitude squared is the power of the window.
                least = QUIET * (y[0].numel() * 3 / 8 * window) ** 0.5
                distance = distance / torch.linalg.vector_norm(y, dim=(1, 2, 3)).clamp(min=least)
            loss = loss + self.convergence * distance.mean()
        if self.log > 0:
            logs = [0.5 * each.square().clamp(min=FLOOR).log() for each in (x, y)]
            loss = loss + self.log * (logs[0] - logs[1]).abs().mean()
        return loss
