"""Spectra against torchaudio, values and gradients."""

from collections.abc import Iterator

import pytest
import torch
from torchaudio.functional import melscale_fbanks
from torchaudio.transforms import MelSpectrogram, Spectrogram

from vqtrain.ops.spectra import mel_filters, mel_spectrum, stft


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Let torchaudio compute its filters in float64, which are of the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(("scale", "norm"), [("htk", None), ("slaney", "slaney")])
@pytest.mark.parametrize(
    ("rate", "n_fft", "mels", "lowest"), [(24_000, 1024, 64, 64.0), (44_100, 512, 40, 0.0)]
)
def test_filters_equal_torchaudio(
    rate: int, n_fft: int, mels: int, lowest: float, scale: str, norm: str | None
) -> None:
    expected = melscale_fbanks(n_fft // 2 + 1, lowest, rate / 2, mels, rate, norm, scale)
    torch.testing.assert_close(mel_filters(rate, n_fft, mels, lowest, scale), expected)


@pytest.mark.parametrize("centered", [True, False])
def test_transform_and_gradient_equal_torchaudio(centered: bool) -> None:
    samples = torch.randn(2, 2, 100, dtype=torch.float64, requires_grad=True)
    options = {"wkwargs": {"dtype": torch.float64}, "power": None, "center": centered}
    theirs = Spectrogram(32, win_length=20, hop_length=7, **options)
    expected = theirs(samples)
    found = stft(samples, n_fft=32, hop=7, window=20, centered=centered)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(each.abs().sum(), samples) for each in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_mel_spectrum_equals_torchaudio() -> None:
    samples = torch.randn(2, 1, 900)
    expected = MelSpectrogram(16_000, 256, hop_length=64, n_mels=20, f_min=64.0)(samples)
    powers = stft(samples, n_fft=256, hop=64).abs().square()
    found = mel_spectrum(powers, sample_rate=16_000, mels=20, lowest=64.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_half_precision_is_widened_and_short_sounds_are_refused() -> None:
    samples = torch.randn(1, 1, 17, dtype=torch.bfloat16)
    assert stft(samples, n_fft=32, hop=8).dtype == torch.complex64
    with pytest.raises(ValueError, match="more than 16 samples, got 16"):
        stft(samples[..., 1:], n_fft=32, hop=8)


def test_filters_of_an_evaluation_serve_in_training() -> None:
    with torch.inference_mode():
        mel_filters(8_000, 64, 5)
    assert not mel_filters(8_000, 64, 5).is_inference()
