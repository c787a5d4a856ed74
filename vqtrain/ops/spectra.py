"""Spectra of sounds: the short-time Fourier transform, and the mel scale."""

import math
from functools import cache

import torch
from einops import rearrange
from jaxtyping import Complex, Float
from torch import Tensor

from vqtrain.ops.precision import at_least_float32, without_autocast

SCALES = ("htk", "slaney")
# Slaney's scale is linear below this frequency, in Hz, and logarithmic above it.
_BEND, _MELS_BELOW, _MELS_PER_LOG = 1000.0, 15.0, 27 / math.log(6.4)


def stft(
    samples: Float[Tensor, "b c t"],
    *,
    n_fft: int,
    hop: int,
    window: int | None = None,
    centered: bool = True,
) -> Complex[Tensor, "b c frequencies frames"]:
    """Return the short-time Fourier transform, with a periodic Hann window.

    Args:
        samples: Sounds; half precision is widened.
        n_fft: Length of a frame, even.
        hop: Samples from one frame to the next.
        window: Length of the window, which is in the middle of a frame; None for ``n_fft``.
        centered: Whether frame i is centered at sample i * hop, and a sound is mirrored at its
            ends; else all frames lie within it.

    Returns:
        The ``n_fft / 2 + 1`` frequencies from 0 to half the sample rate.

    Raises:
        ValueError: If the sounds have no more than ``n_fft / 2`` samples to be mirrored.
        RuntimeError: If they are shorter than a frame that is not centered.
    """
    x = at_least_float32(samples).flatten(0, 1)
    if centered:
        x = mirrored(x, n_fft // 2)
    length = n_fft if window is None else window
    weights = torch.hann_window(length, dtype=x.dtype, device=x.device)
    with without_autocast(x):
        frames = torch.stft(
            x, n_fft, hop, length, weights, center=False, return_complex=True, onesided=True
        )
    return rearrange(frames, "(b c) f n -> b c f n", c=samples.shape[1])


def mirrored(x: Float[Tensor, "n t"], margin: int) -> Float[Tensor, "n t2"]:
    """Continue sounds on both sides by their mirror images, without the samples at the ends.

    torch's own has no deterministic gradient on a GPU.
    """
    if x.shape[1] <= margin:
        raise ValueError(f"a sound must have more than {margin} samples, got {x.shape[1]}")
    return torch.cat([x[:, 1 : margin + 1].flip(1), x, x[:, -margin - 1 : -1].flip(1)], dim=1)


def mel_spectrum(
    magnitudes: Float[Tensor, "b c frequencies frames"],
    *,
    sample_rate: int,
    mels: int,
    lowest: float = 0.0,
    scale: str = "htk",
) -> Float[Tensor, "b c mels frames"]:
    """Sum up magnitudes, or their squares, by the filters of ``mel_filters``."""
    filters = mel_filters(
        sample_rate, 2 * (magnitudes.shape[2] - 1), mels, lowest, scale, magnitudes.device
    )
    with without_autocast(magnitudes):
        return filters.to(magnitudes.dtype).T @ magnitudes


@cache
def mel_filters(
    sample_rate: int,
    n_fft: int,
    mels: int,
    lowest: float = 0.0,
    scale: str = "htk",
    device: torch.device | None = None,
) -> Float[Tensor, "frequencies mels"]:
    """Return triangular filters in float64, evenly spaced in mels up to half the sample rate.

    Args:
        sample_rate: In Hz.
        n_fft: Length of a frame.
        mels: Number of filters, at least 1. If they are many, low ones may be all 0.
        lowest: Frequency at which the first one begins, in Hz.
        scale: ``htk``, with filters that peak at 1, torchaudio's default; or ``slaney``, with
            filters of equal area, librosa's.
        device: Where they are.
    """
    with torch.inference_mode(mode=False):  # as they are kept, and may be used in training
        first, last = (_to_mels(hertz, scale) for hertz in (lowest, sample_rate / 2))
        ends = _to_hertz(torch.linspace(first, last, mels + 2, dtype=torch.float64), scale)
        frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
        distances, widths = ends - frequencies[:, None], ends.diff()
        sides = -distances[:, :-2] / widths[:-1], distances[:, 2:] / widths[1:]
        filters = torch.minimum(*sides).clamp(min=0.0)
        if scale == "slaney":
            filters *= 2 / (ends[2:] - ends[:-2])
        return filters.to(device)


def _to_mels(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hertz / 700)
    if hertz < _BEND:
        return hertz * _MELS_BELOW / _BEND
    return _MELS_BELOW + _MELS_PER_LOG * math.log(hertz / _BEND)


def _to_hertz(mels: Float[Tensor, " n"], scale: str) -> Float[Tensor, " n"]:
    if scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    above = _BEND * torch.exp((mels - _MELS_BELOW) / _MELS_PER_LOG)
    return torch.where(mels < _MELS_BELOW, mels * _BEND / _MELS_BELOW, above)
