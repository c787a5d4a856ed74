"""Spectrograms: how loud each frequency of a sound is over time, as a picture with axes."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float64, UInt8
from PIL import Image, ImageDraw, ImageFont

# Of the window, a Hann; each of its frequencies, from 0 to half the rate, is a row of pixels.
WINDOW = 512
ROWS, COLUMNS = WINDOW // 2, 384
# Between columns at most; a column of a longer sound is the mean of several windows.
HOP = WINDOW // 2
LEFT, BELOW = 48, 20
HEIGHT, WIDTH = ROWS + BELOW, LEFT + COLUMNS
# Below a sine of full scale: the darkest color.
RANGE_DB = 90.0
FONT_SIZE, TICK = 11, 4
TICKS = 5
# From silence to a full-scale sine; each color is lighter than the one before it.
COLORS = np.array(
    [[8, 6, 22], [52, 22, 104], [134, 34, 116], [220, 72, 78], [250, 158, 70], [252, 246, 190]]
)


def spectrogram(
    sound: Float[np.ndarray, "c length"], rate: float | None
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Draw a sound, over all channels, from silence in dark to full scale in light.

    The colors mean the same in every picture, so that two can be compared.

    Args:
        sound: In [-1, 1].
        rate: Values a second; if that is not known, times are in values, and frequencies in turns a
            value.
    """
    shares = (levels(sound) / RANGE_DB + 1).clip(0, 1) * (len(COLORS) - 1)
    places = np.arange(len(COLORS))
    colors = np.stack([np.interp(shares, places, COLORS[:, c]) for c in range(3)], axis=-1)
    whole = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    whole[:ROWS, LEFT:] = colors[::-1].round()  # low frequencies are at the bottom
    picture = Image.fromarray(whole)
    _draw_axes(ImageDraw.Draw(picture), sound.shape[1], rate)
    return np.asarray(picture)


def levels(sound: Float[np.ndarray, "c length"]) -> Float64[np.ndarray, "rows columns"]:
    """Measure a sound in dB against a sine of full scale, from the lowest frequency on."""
    window = np.hanning(WINDOW + 1)[:-1]
    # Of a sine of amplitude 1 whose frequency is that of a row.
    full_scale = (window.sum() / 2) ** 2
    # Reflected: a sound that began at once would show all frequencies there.
    padded = np.pad(np.nan_to_num(sound), [(0, 0), (WINDOW // 2, WINDOW // 2)], mode="reflect")
    columns = []
    for starts in _starts(sound.shape[1]):
        pieces = padded[:, starts[:, None] + np.arange(WINDOW)] * window
        power = np.abs(np.fft.rfft(pieces)[..., :ROWS]) ** 2
        columns.append(power.mean(axis=(0, 1)))
    return 10 * np.log10(np.maximum(np.stack(columns, axis=1) / full_scale, 1e-20))


def _starts(length: int) -> Iterator[np.ndarray]:
    """Yield where the windows of each column start, in the padded sound."""
    edges = np.linspace(0, length, COLUMNS + 1)
    for first, end in pairwise(edges):
        middle = (first + end) / 2
        yield (np.arange(first, end, HOP) if end - first > HOP else np.array([middle])).astype(int)


def _draw_axes(draw: ImageDraw.ImageDraw, length: int, rate: float | None) -> None:
    font = ImageFont.load_default(FONT_SIZE)
    per_second, units = (1.0, ("", "")) if rate is None else (rate, (" s", " Hz"))
    for value in ticks(length / per_second):
        left = LEFT + value * per_second / length * (COLUMNS - 1)
        draw.line([left, ROWS, left, ROWS + TICK], fill="black")
        text, anchor = (f"{value:g}", "ma") if value else (f"0{units[0]}", "la")
        draw.text((left, ROWS + TICK), text, fill="black", font=font, anchor=anchor)
    for value in ticks(per_second / 2):
        top = ROWS - 1 - value / (per_second / 2) * ROWS
        draw.line([LEFT - TICK, top, LEFT - 1, top], fill="black")
        text, anchor = (f"{value:g}", "rm") if value else (f"0{units[1]}", "rd")
        draw.text((LEFT - TICK - 2, top), text, fill="black", font=font, anchor=anchor)


def ticks(last: float) -> list[float]:
    """Choose round values from 0 to below the last one, about ``TICKS``.

    Example:
        >>> ticks(8000.0), ticks(1.2)
        ([0.0, 2000.0, 4000.0, 6000.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    """
    raw = last / TICKS
    power = 10 ** np.floor(np.log10(raw))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda each: abs(each - raw))
    # The last one would be cut off at the edge.
    return [round(n * float(step), 10) for n in range(int(0.97 * last / step) + 1)]
