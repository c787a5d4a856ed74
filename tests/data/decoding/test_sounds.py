"""Windows of sounds against formulas, and against resampling the whole and cutting."""

import io
import re
import struct

import numpy as np
import pytest
import soundfile
import soxr
import torch
import torchaudio

from vqtrain.data.decoding import sounds
from vqtrain.data.decoding.sounds import SoundTransform
from vqtrain.errors import BadSampleError, ConfigError

RATE = 16000


def sine(rate: int, hz: float = 440.0, *, count: int | None = None) -> np.ndarray:
    """Half as loud as possible; half a second of it by default."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(count or rate // 2) / rate)


def encode(values: np.ndarray, rate: int = RATE, kind: str = "WAV", **options) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, values, rate, format=kind, **options)
    return file.getvalue()


def transform(length: int = 1000, *, channels: int = 1, sample_rate: int = RATE) -> SoundTransform:
    return SoundTransform(sample_rate=sample_rate, channels=channels, length=length)


class Start(np.random.Generator):
    """It draws this number."""

    def __init__(self, start: int) -> None:
        super().__init__(np.random.PCG64(0))
        self.start = start

    def integers(self, count: int) -> int:
        """Return it."""
        assert 0 <= self.start < count
        return self.start


def reason(encoded: bytes, given: SoundTransform | None = None) -> str:
    with pytest.raises(BadSampleError) as caught:
        (given or transform()).decode(encoded, None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The step of the coarsest of them, or what the coding loses of a sine.
KINDS = {
    "8-bit": ({"subtype": "PCM_U8"}, 1 / 128),
    "16-bit": ({"subtype": "PCM_16"}, 1e-4),
    "24-bit": ({"subtype": "PCM_24"}, 1e-6),
    "32-bit": ({"subtype": "PCM_32"}, 1e-6),
    "float": ({"subtype": "FLOAT"}, 1e-6),
    "flac": ({"kind": "FLAC", "subtype": "PCM_24"}, 1e-6),
    "vorbis": ({"kind": "OGG", "subtype": "VORBIS"}, 0.02),
    "opus": ({"kind": "OGG", "subtype": "OPUS"}, 0.05),
    "mp3": ({"kind": "MP3"}, 0.05),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_sine_that_it_holds(kind):
    options, error = KINDS[kind]
    encoded = encode(sine(RATE), **options)
    whole = transform().decode_whole(encoded)
    assert whole.dtype == torch.float32
    assert whole.shape == (1, RATE // 2)
    inner = slice(500, -500)  # codings blur the abrupt ends
    assert np.abs(whole[0].numpy() - sine(RATE))[inner].max() < error
    middle = transform(1000).decode(encoded, None)
    assert torch.equal(middle, whole[:, 3500:4500])
    drawn = transform(1000).decode(encoded, Start(6123))
    assert torch.equal(drawn, whole[:, 6123:7123])


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 22050, 15999])
def test_other_rates_give_the_same_sine_and_every_window_its_part_of_the_whole(rate):
    values = sine(rate, count=rate // 2 - 1)
    whole = transform().decode_whole(encode(values, rate, subtype="FLOAT"))
    assert whole.shape[1] == len(soxr.resample(values, rate, RATE))
    inner = slice(300, -300)
    expected = sine(RATE, count=whole.shape[1])
    assert np.abs(whole[0].numpy() - expected)[inner].max() < 1e-4
    noisy = encode(np.random.default_rng(0).uniform(-0.3, 0.3, 2 * rate), rate, subtype="FLOAT")
    whole, last = transform().decode_whole(noisy), transform().decode_whole(noisy).shape[1] - 1000
    for start in (0, 1, 777, 17001, last - 1, last):
        part = transform().decode(noisy, Start(start))
        assert (part - whole[:, start : start + 1000]).abs().max() < (1e-6 if rate > RATE else 2e-5)


def test_frequencies_beyond_the_new_rate_are_filtered_as_torchaudio_does():
    rate = 48000
    chord = sine(rate, 1000, count=rate) + sine(rate, 11000, count=rate)
    (values,) = transform().decode_whole(encode(chord, rate, subtype="FLOAT"))
    reference = torchaudio.functional.resample(
        torch.from_numpy(chord), rate, RATE, lowpass_filter_width=64
    )
    inner = slice(500, -500)
    assert (values - reference)[inner].abs().max() < 1e-3
    assert (values - torch.from_numpy(sine(RATE, 1000, count=RATE)))[inner].abs().max() < 1e-3


def test_a_window_reads_only_its_part_of_the_file(monkeypatch):
    counts = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile,
        "read",
        lambda file, count, **options: counts.append(count) or read(file, count, **options),
    )
    encoded = encode(sine(44100, count=200_000), 44100, kind="FLAC")
    transform(1600).decode(encoded, None)
    # 4,410 samples, 3 x 256 beyond each end, and at most 441 to one that is in step.
    assert 4410 + 2 * 768 <= sum(counts) <= 4410 + 2 * 768 + 441


def test_a_window_takes_one_seek(monkeypatch):
    # soundfile would seek again after each read, which makes libsndfile search in a FLAC.
    places = []
    seek = soundfile.SoundFile.seek
    monkeypatch.setattr(
        soundfile.SoundFile, "seek", lambda file, *place: places.append(place) or seek(file, *place)
    )
    transform(1600).decode(encode(sine(RATE), kind="FLAC"), Start(2000))
    assert places == [(2000,)]


def test_a_window_of_an_mp3_with_a_reservoir_of_bits_is_that_of_the_whole():
    loud = np.repeat([0.0, 1.0] * 10, 4800) * np.random.default_rng(0).normal(0, 0.2, 96000)
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.9}
    encoded = encode(sine(24000, count=96000) * 0.1 + loud, 24000, kind="MP3", **options)
    same_rate = transform(2000, sample_rate=24000)
    whole = same_rate.decode_whole(encoded)
    for start in (50_001, 77_777, 94_000):
        part = same_rate.decode(encoded, Start(start))
        assert torch.equal(part, whole[:, start : start + 2000])


def test_windows_are_drawn_evenly_and_validation_takes_the_middle():
    encoded = encode(np.arange(12) / 16)
    generator = np.random.default_rng(0)
    starts = [int(transform(10).decode(encoded, generator)[0, 0] * 16) for _ in range(60)]
    assert [10 < starts.count(start) < 30 for start in range(3)] == [True] * 3
    assert transform(10).decode(encoded, None)[0, 0] == 1 / 16


def test_channels_are_mixed_to_one_and_one_is_repeated():
    left, right = sine(RATE), np.full(RATE // 2, 0.25)
    stereo = encode(np.stack([left, right], axis=1), subtype="FLOAT")
    (mono,) = transform().decode_whole(stereo)
    assert np.abs(mono.numpy() - (left + 0.25) / 2).max() < 1e-6
    both = transform(channels=2).decode_whole(stereo)
    assert np.abs(both.numpy() - np.stack([left, right])).max() < 1e-6
    repeated = transform(channels=2).decode_whole(encode(left, subtype="FLOAT"))
    assert torch.equal(repeated[0], repeated[1])
    assert np.abs(repeated[0].numpy() - left).max() < 1e-6
    six = encode(np.tile(np.arange(6) / 8, (2000, 1)), subtype="FLOAT")
    assert transform().decode(six, None).unique().tolist() == [2.5 / 8]
    assert transform(channels=6).decode(six, None)[:, 0].tolist() == [i / 8 for i in range(6)]
    assert reason(six, transform(channels=2)) == "6 channels do not fit data.channels=2"


def test_loudness_stays_and_silence_is_a_sound():
    assert transform().decode(encode(np.zeros(2000)), None).abs().max() == 0
    quiet = transform().decode(encode(sine(RATE) / 1000, subtype="FLOAT"), None)
    assert 4.9e-4 < quiet.abs().max() <= 5e-4
    loud = transform().decode(encode(sine(RATE) * 4, subtype="FLOAT"), None)
    assert loud.abs().max() == 1


def streamed(size: int) -> bytes:
    """Write a wav with this placeholder as the size of its samples."""
    encoded = encode(sine(RATE))
    assert encoded[36:40] == b"data"
    return encoded[:40] + struct.pack("<I", size) + encoded[44:]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_that_was_written_to_a_pipe_is_whole(size):
    assert transform().decode_whole(streamed(size)).shape == (1, RATE // 2)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_of_16_bits_is_what_libsndfile_reads(channels):
    values = np.random.default_rng(0).integers(-(2**15), 2**15, (2000, channels), dtype=np.int16)
    encoded = encode(values, 44100, subtype="PCM_16")
    # Another chunk before the samples, of an odd length, and one behind them.
    chunk = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    for sound in (encoded, encoded[:12] + chunk + encoded[12:] + chunk):
        expected, rate = soundfile.read(io.BytesIO(sound), dtype="float32", always_2d=True)
        with sounds.open_sound(sound) as file:
            assert (file.rate, file.channels, file.frames) == (rate, channels, 2000)
            assert file.mode == f"44100 Hz {['mono', 'stereo'][channels - 1]} PCM_16"
            assert np.array_equal(file.read(0, 2000), expected)
            assert np.array_equal(file.read(700, 1900), expected[700:1900])


def damaged() -> dict[str, tuple[bytes, str]]:
    wav, flac = encode(sine(RATE)), encode(sine(RATE), kind="FLAC")
    ogg, opus, mp3 = (
        encode(sine(RATE), kind=kind, subtype=subtype)
        for kind, subtype in [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
    )
    nan = sine(RATE)
    nan[4000] = np.nan
    unknown = bytearray(flac)
    unknown[21:26] = bytes([unknown[21] & 0xF0, 0, 0, 0, 0])
    tagged = b"ID3\4\0\0" + bytes([0, 0, 1, 0]) + bytes(128) + mp3
    return {
        "empty": (b"", "the file is empty"),
        "text": (b"no sound at all\n" * 100, "no wav, flac, ogg or mp3"),
        "zeros": (bytes(5000), "no wav, flac, ogg or mp3"),
        "short": (encode(sine(RATE)[:999]), "999 samples at 16000 Hz are fewer than the length of"),
        "short at 8 kHz": (encode(sine(8000)[:400], 8000), "800 samples at 16000 Hz are fewer"),
        "no samples": (encode(sine(RATE)[:0]), "0 samples at 16000 Hz are fewer"),
        "NaN": (encode(nan, subtype="FLOAT"), "some values are NaN or infinite"),
        "cut wav": (wav[:-5000], "it is cut off: 11000 of 16000 bytes of its samples are there"),
        "cut RIFX": (encode(sine(RATE), endian="BIG")[:-8000], "it is cut off: 8000 of 16000 byt"),
        "cut header": (wav[:30], "cannot be decoded|no wav"),
        "cut flac": (flac[: len(flac) // 2], "cannot be decoded: "),
        "unknown": (bytes(unknown), "its header does not say how long it is"),
        "cut ogg": (ogg[:-100], "it is cut off in its last page"),
        "cut opus": (opus[: len(opus) // 2], "it is cut off in its last page"),
        "cut mp3": (mp3[:-300], r"it is cut off: \d+ of 8000 samples are there"),
        "cut mp3 with a tag": (tagged[:-300], r"it is cut off: \d+ of 8000 samples"),
    }


@pytest.mark.parametrize("fault", damaged())
def test_faults_are_one_line(fault):
    encoded, expected = damaged()[fault]
    assert re.search(expected, reason(encoded))


def test_flipped_bits_in_headers_give_a_fault_or_finite_values():
    generator, outcomes = np.random.default_rng(0), []
    for kind in ({}, {"kind": "FLAC"}, {"kind": "OGG"}):
        for _ in range(30):
            broken = bytearray(encode(sine(RATE), **kind))
            broken[generator.integers(200)] ^= 1 << generator.integers(8)
            try:
                values = transform().decode(bytes(broken), generator)
                outcomes.append(values.shape == (1, 1000) and bool(values.isfinite().all()))
            except BadSampleError as error:
                outcomes.append("\n" not in str(error))
    assert outcomes == [True] * 90


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setattr(sounds, "find_spec", lambda name: None if name == "soxr" else name)
    with pytest.raises(ConfigError, match=r'sounds need soxr: pip install "vqtrain\[sound\]"'):
        transform()


def test_a_size_a_summary_and_its_like_of_another_length():
    given = transform(1000, channels=2)
    assert given.sample_size == (1000,)
    assert given.range == (-1.0, 1.0)
    assert given.summary == {"sample_rate": RATE, "length": 1000}
    assert given.sized((320,)) == transform(320, channels=2)
