"""The demo's sounds, made in code: voices, chords and plucked strings, mono at 16 kHz.

All are sums of harmonics below 4 kHz, most of their energy below 1 kHz, without noise: what a small
codec can learn in minutes. Levels and lengths vary, and none is silent for long.
"""

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from vqtrain.data.sources.demo import Role, write_tar

# Increase it whenever the sounds change, so that an old pack is not used.
RECIPE = 1

SAMPLE_RATE = 16000
SECONDS = (2.0, 3.0)
# Sounds of each kind, to train on and to hold out.
COUNTS: dict[Role, dict[str, int]] = {
    "training": {"voice": 80, "chord": 60, "pluck": 60},
    "validation": {"voice": 12, "chord": 10, "pluck": 10},
}
# MIDI numbers, from 98 to 415 Hz. Every fourth is held out, as a note that is sung or plucked and
# as the root of a chord.
NOTES: dict[Role, tuple[int, ...]] = {
    "training": tuple(note for note in range(43, 69) if note % 4),
    "validation": tuple(note for note in range(43, 69) if not note % 4),
}
# The length of vocal tracts relative to that of the vowels below; others are held out.
TRACTS: dict[Role, tuple[float, ...]] = {
    "training": (0.8, 0.84, 0.92, 0.96, 1.0, 1.04, 1.12, 1.16),
    "validation": (0.88, 1.08),
}
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 5, 7), (0, 4, 7, 11), (0, 3, 7, 10))
# The first three formants of men's vowels i, e, a, o and u, in Hz (Peterson and Barney 1952).
VOWELS = np.array(
    [(270, 2290, 3010), (530, 1840, 2480), (730, 1090, 2440), (570, 840, 2410), (300, 870, 2240)],
    dtype=np.float64,
)
BANDWIDTHS_HZ = np.array([80.0, 100.0, 140.0])
# Harmonics fade out over the last of these.
HIGHEST_HZ, FADE_HZ = 4000.0, 500.0
# Amplitudes of a voice's harmonics are computed once in so many samples.
CONTROL = 100

Samples = Float64[np.ndarray, " t"]


def write(folder: Path) -> None:
    """Write ``training.tar`` and ``validation.tar``, 200 and 32 sounds, in a few seconds."""
    for role in COUNTS:
        files = ((f"{key}.flac", _encode(sound)) for key, sound in make_sounds(role))
        write_tar(folder / f"{role}.tar", files)


def make_sounds(role: Role) -> Iterator[tuple[str, Samples]]:
    """Make the sounds of a role, the same each time: their keys, and values in [-1, 1]."""
    for kind, count in COUNTS[role].items():
        make = {"voice": _voice, "chord": _chord, "pluck": _pluck}[kind]
        for number in range(count):
            generator = np.random.default_rng(list(f"{RECIPE} {role} {kind} {number}".encode()))
            length = round(generator.uniform(*SECONDS) * SAMPLE_RATE)
            sound = make(length, role, generator)
            level = 10 ** (generator.uniform(-12, -1) / 20)
            yield f"{kind}-{number:03d}", sound * (level / np.abs(sound).max())


def _encode(sound: Samples) -> bytes:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, sound, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _voice(length: int, role: Role, generator: np.random.Generator) -> Samples:
    """Sing a few notes on moving vowels: glottal pulses with vibrato, through three formants."""
    parts = int(generator.integers(2, 5))
    times = np.arange(length) / SAMPLE_RATE
    # A melody of equal notes, whose steps are glides of 80 ms.
    borders = np.arange(1, parts) * times[-1] / parts
    glides = np.stack([borders - 0.04, borders + 0.04], axis=1).ravel()
    notes = generator.choice(NOTES[role], parts)
    pitch = np.interp(times, glides, np.repeat(notes, 2)[1:-1])
    rate, depth = generator.uniform(4.5, 6.5), generator.uniform(0.1, 0.35)
    hertz = 440 * np.exp2((pitch + depth * np.sin(2 * np.pi * rate * times) - 69) / 12)
    control = np.append(np.arange(0, length, CONTROL), length - 1)
    vowels = VOWELS[generator.integers(len(VOWELS), size=parts + 1)] / generator.choice(
        TRACTS[role]
    )
    turns = np.linspace(0, times[-1], parts + 1)
    formants = np.stack([np.interp(times[control], turns, track) for track in vowels.T], axis=1)
    numbers = np.arange(1, int(HIGHEST_HZ / hertz.min()) + 1)
    partials = hertz[control, None] * numbers
    # Glottal pulses fall by 12 dB an octave, and lips give back 6 dB of it.
    amplitudes = _response(partials, formants) * _faded(partials) / numbers
    turn = np.exp(2j * np.pi * np.cumsum(hertz) / SAMPLE_RATE)
    sound, wave = np.zeros(length), np.ones(length, dtype=np.complex128)
    for amplitude in amplitudes.T:
        wave = wave * turn  # the next harmonic
        sound += np.interp(times, times[control], amplitude) * wave.imag
    return sound * _envelope(length, attack_s=0.06, release_s=0.12)


def _response(
    hertz: Float64[np.ndarray, "m k"], formants: Float64[np.ndarray, "m 3"]
) -> Float64[np.ndarray, "m k"]:
    """Return the gain of three resonances in a row, each 1 at 0 Hz."""
    ratio = hertz[..., None] / formants[:, None]
    damping = BANDWIDTHS_HZ / formants[:, None]
    return (1 / np.abs(1 - ratio**2 + 1j * ratio * damping)).prod(axis=-1)


def _chord(length: int, role: Role, generator: np.random.Generator) -> Samples:
    """Play two or three chords of a soft organ, one after the other."""
    borders = np.linspace(0, length, int(generator.integers(2, 4)) + 1).astype(int)
    sound = np.zeros(length)
    for begin, end in pairwise(borders.tolist()):
        times = np.arange(end - begin) / SAMPLE_RATE
        root, brightness = generator.choice(NOTES[role]), generator.uniform(1.2, 2.0)
        for interval in CHORDS[generator.integers(len(CHORDS))]:
            # A little out of tune, so that they beat.
            hertz = _partials(root + interval + generator.normal(0, 0.02), 8)
            gains = _faded(hertz) / np.arange(1, 9) ** brightness
            phases = generator.uniform(0, 2 * np.pi, (8, 1))
            sound[begin:end] += gains @ np.sin(2 * np.pi * hertz[:, None] * times + phases)
        sound[begin:end] *= _envelope(end - begin, attack_s=0.05, release_s=0.05)
    return sound


def _pluck(length: int, role: Role, generator: np.random.Generator) -> Samples:
    """Pluck a string every quarter to half second: harmonics that decay, the high ones faster."""
    sound, numbers = np.zeros(length), np.arange(1, 13)
    begin = 0
    while begin < length - SAMPLE_RATE // 5:
        times = np.arange(length - begin) / SAMPLE_RATE
        hertz = _partials(float(generator.choice(NOTES[role])), 12)
        place, slowest = generator.uniform(0.12, 0.45), generator.uniform(1.0, 3.0)
        # The shape of a string that is pulled up at that place is such a series of sines.
        gains = _faded(hertz) * np.sin(np.pi * place * numbers) / numbers**2
        decays = np.exp(-slowest * (1 + 0.1 * numbers[:, None] ** 2) * times)
        waves = decays * np.sin(2 * np.pi * hertz[:, None] * times)
        sound[begin:] += np.minimum(1, times / 0.004) * (gains @ waves)
        begin += int(generator.uniform(0.25, 0.5) * SAMPLE_RATE)
    return sound * _envelope(length, attack_s=0.002, release_s=0.05)


def _partials(note: float, count: int) -> Float64[np.ndarray, " k"]:
    """Return the frequencies of the first harmonics of a MIDI number, in Hz."""
    return 440 * 2 ** ((note - 69) / 12) * np.arange(1, count + 1)


def _faded(hertz: Float64[np.ndarray, "*any"]) -> Float64[np.ndarray, "*any"]:
    return np.clip((HIGHEST_HZ - hertz) / FADE_HZ, 0, 1)


def _envelope(length: int, *, attack_s: float, release_s: float) -> Samples:
    times = np.arange(length) / SAMPLE_RATE
    return np.minimum(1, np.minimum(times / attack_s, times[::-1] / release_s))
