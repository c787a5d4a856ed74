"""Spectrograms against sines whose frequency and loudness are known."""

import numpy as np
import torch

from vqtrain.drawing.spectrogram import COLORS, LEFT, ROWS, levels, spectrogram


def sine(*, row: int, amplitude: float, length: int) -> np.ndarray:
    """Make a sine of a row's frequency."""
    return amplitude * np.sin(2 * np.pi * row * np.arange(length) / (2 * ROWS))[None]


def test_a_sine_is_a_line_at_its_frequency_of_its_level() -> None:
    for length in (3000, 200_000):  # one window a column, and several
        found = levels(sine(row=40, amplitude=0.1, length=length))
        middle = found[:, 40:-40]  # whole windows
        assert (middle.argmax(axis=0) == 40).all()
        assert np.abs(middle[40] + 20).max() < 0.1  # a tenth of full scale is -20 dB
        assert middle[60:].max() < -100


def test_levels_are_those_of_torch() -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, (2, 384 * 50)).astype(np.float32)
    own = levels(sound)
    window = torch.hann_window(2 * ROWS)
    spectrum = torch.stft(
        torch.from_numpy(sound), 2 * ROWS, 1, window=window, return_complex=True, center=False
    ).abs()
    # The window in the middle of the column from 200 x 50 on starts half a window before it.
    power = (spectrum[:, :ROWS, 200 * 50 + 25 - ROWS] / (window.sum() / 2)).square().mean(0)
    np.testing.assert_allclose(own[:, 200], 10 * power.log10().numpy(), atol=0.01)


def test_colors_grow_lighter_from_silence_to_full_scale_and_axes_are_named() -> None:
    light = COLORS @ [0.299, 0.587, 0.114]
    assert (np.diff(light) > 0).all()
    silent = spectrogram(np.zeros((1, 600), np.float32), 16_000.0)
    assert (silent[:ROWS, LEFT:] == COLORS[0]).all()
    loud = spectrogram(sine(row=40, amplitude=1.0, length=6000).astype(np.float32), 16_000.0)
    assert (loud[ROWS - 1 - 40, LEFT + 50 : -50] == COLORS[-1]).all()
    # A tick and its text at the left of each multiple of 2,000 Hz, and below each 0.1 s.
    ticks = (loud[:ROWS, LEFT - 2] == 0).all(axis=1).nonzero()[0]
    assert ticks.tolist() == [63, 127, 191, 255]
    assert not np.array_equal(
        loud[:, :LEFT], spectrogram(np.zeros((1, 600), np.float32), None)[:, :LEFT]
    )
