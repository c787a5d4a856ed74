"""The demo's sounds: their spectra by formula, what is held out, and the tars that hold them."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vqtrain.data.media import SOUND
from vqtrain.data.sources import demo_sounds
from vqtrain.data.sources.demo import demo_shards
from vqtrain.data.sources.demo_sounds import COUNTS, NOTES, TRACTS, make_sounds
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.scan import scan_tar

ROLES = ("training", "validation")


def few(monkeypatch, **counts: int) -> None:
    monkeypatch.setattr(demo_sounds, "COUNTS", dict.fromkeys(ROLES, counts))


def near(sound: np.ndarray, hertz: list[float], width: float) -> float:
    """Return the share of the energy that is so near to these frequencies."""
    energy = np.abs(np.fft.rfft(sound)) ** 2
    distances = np.abs(np.fft.rfftfreq(len(sound), 1 / 16000)[:, None] - np.array(hertz))
    return energy[distances.min(axis=1) <= width].sum() / energy.sum()


def test_each_kind_has_the_harmonics_of_its_notes(monkeypatch):
    few(monkeypatch, voice=1, chord=1, pluck=1)
    monkeypatch.setattr(demo_sounds, "NOTES", dict.fromkeys(ROLES, (57,)))  # the a at 220 Hz
    monkeypatch.setattr(demo_sounds, "CHORDS", ((0, 12, 19),))  # an octave and a fifth above it
    monkeypatch.setattr(demo_sounds, "VOWELS", np.array([[660.0, 1100.0, 2400.0]]))
    monkeypatch.setattr(demo_sounds, "TRACTS", dict.fromkeys(ROLES, (1.0,)))
    sounds = dict(make_sounds("training"))
    assert list(sounds) == ["voice-000", "chord-000", "pluck-000"]
    harmonics = [220.0 * k for k in range(1, 18)]
    # Vibrato of 0.35 half tones moves the third harmonic by 13 Hz, and the eighth by 36.
    assert near(sounds["voice-000"], harmonics, 40) > 0.99
    assert near(sounds["voice-000"], [660.0], 16) > 0.5  # the resonance at the third harmonic
    fifth = 220 * 2 ** (19 / 12)
    assert near(sounds["chord-000"], harmonics + [fifth * k for k in range(1, 6)], 8) > 0.99
    assert near(sounds["pluck-000"], harmonics, 12) > 0.97
    for sound in sounds.values():
        assert 32000 <= len(sound) <= 48000
        assert 10 ** (-12 / 20) <= np.abs(sound).max() <= 10 ** (-1 / 20)


def test_other_notes_and_voices_are_held_out():
    assert [sum(COUNTS[role].values()) for role in ROLES] == [200, 32]
    for choices in (NOTES, TRACTS):
        assert not set(choices["training"]) & set(choices["validation"])


def test_tars_are_the_same_each_time(monkeypatch, tmp_path):
    few(monkeypatch, voice=1, chord=1, pluck=1)
    contents = []
    for name in ("one", "other"):
        monkeypatch.setenv("VQTRAIN_CACHE", str(tmp_path / name))
        contents.append([Path(demo_shards(role, SOUND)[0]).read_bytes() for role in ROLES])
    assert contents[0] == contents[1]
    assert contents[0][0] != contents[0][1]


@pytest.mark.usefixtures("cache")
def test_a_tar_holds_flacs_of_16_bits(monkeypatch):
    few(monkeypatch, chord=2)
    (shard,) = demo_shards("validation", SOUND)
    index = SampleIndex.concatenate([scan_tar(Path(shard), SOUND)])
    assert [index.key(i) for i in range(len(index))] == ["chord-000", "chord-001"]
    for i, (_, sound) in enumerate(make_sounds("validation")):
        with soundfile.SoundFile(io.BytesIO(index.read(i))) as file:
            assert (file.format, file.subtype, file.samplerate) == ("FLAC", "PCM_16", 16000)
            assert np.abs(file.read() - sound).max() <= 2**-15
