"""From encoded sounds to samples: only the window that is wanted is read and resampled."""

import io
import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import ClassVar, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int16
from torch import Tensor

from vqtrain.data.decoding.base import Transform
from vqtrain.data.media import SOUND, Media
from vqtrain.errors import BadSampleError, ConfigError, TooShortError
from vqtrain.ops.pixels import ValueRange

# What soxr's filter sees to each side, in samples of the lower rate; with half of it a window
# differs from the same part of the whole sound by 2e-7.
_MARGIN = 256
# How libsndfile says that a header has no count, as that of a FLAC that was written to a pipe.
_UNKNOWN = 2**63 - 1
# Its errors for files that are no sounds, and for an mp3 without a whole frame.
_UNRECOGNIZED = (1, 7)
_NO_SOUND = "no wav, flac, ogg or mp3"
# libsndfile opens others, too.
_SUFFIXES = {
    "WAV": "wav",
    "WAVEX": "wav",
    "RF64": "wav",
    "FLAC": "flac",
    "OGG": "ogg",
    "MP3": "mp3",
}
# Sizes from here on are what programs write that do not know it yet, also to a pipe.
_PLACEHOLDER = 0x7FFFF000
_OGG = b"OggS"
# Of an ogg page, up to the table of sizes whose length is its last byte.
_OGG_HEADER = 27
# With one of them in its first frame an mp3 says how long it is, else libsndfile guesses.
_MP3_COUNTS = (b"Xing", b"Info")


@final
@dataclass(frozen=True, kw_only=True)
class SoundTransform(Transform):
    """How encoded sounds become samples: float32 in [-1, 1], as loud as the file.

    Attributes:
        sample_rate: Of the samples, in Hz; files of another rate are resampled.
        channels: 1 for the mean of a file's channels; with more a file must have as many, or one,
            which is repeated.
        length: Of a sample, at ``sample_rate``.
        range: What libsndfile gives; values beyond it, which only floats have, become its ends.
    """

    media: ClassVar[Media] = SOUND

    sample_rate: int
    channels: int
    length: int
    range: ValueRange | None = field(default=(-1.0, 1.0), init=False)

    def __post_init__(self) -> None:
        """Look for the libraries, which are imported only where sounds are."""
        for package in ("soundfile", "soxr"):
            if find_spec(package) is None:
                raise ConfigError(f'sounds need {package}: pip install "vqtrain[sound]"')

    @property
    def sample_size(self) -> tuple[int]:
        """The number of samples."""
        return (self.length,)

    @property
    def summary(self) -> Mapping[str, object]:
        """Rate and length."""
        return {"sample_rate": self.sample_rate, "length": self.length}

    def sized(self, size: tuple[int, ...]) -> "SoundTransform":
        """Return the same for sounds of another length."""
        (length,) = size
        return replace(self, length=length)

    def decode(
        self, encoded: bytes, generator: np.random.Generator | None
    ) -> Float32[Tensor, "c t"]:
        """Decode a window: one of equal chance, or the middle without a generator.

        Windows begin at any sample of the resampled sound, and equal that part of it to 1e-6; to
        2e-5 if the rates have no common factor to speak of, such as 44,100 and 44,099 Hz.

        Raises:
            TooShortError: If it is shorter.
            BadSampleError: If it cannot be decoded, or has other channels.
        """
        with open_sound(encoded) as sound:
            total = sound.count(self.sample_rate)
            spare = total - self.length
            if spare < 0:
                raise TooShortError(
                    f"{total} samples at {self.sample_rate} Hz are fewer than the length of "
                    f"{self.length}",
                    total,
                )
            start = spare // 2 if generator is None else int(generator.integers(spare + 1))
            return self._part(sound, start, self.length)

    def decode_whole(self, encoded: bytes) -> Float32[Tensor, "c t"]:
        """Decode and resample all of a sound; errors are those of ``decode``."""
        with open_sound(encoded) as sound:
            total = sound.count(self.sample_rate)
            if not total:
                raise BadSampleError("it has no samples")
            return self._part(sound, 0, total)

    def _part(self, sound: "OpenSound", start: int, length: int) -> Float32[Tensor, "c t"]:
        """Return samples ``start`` to ``start + length`` of the resampled sound."""
        common = math.gcd(sound.rate, self.sample_rate)
        step, step_out = sound.rate // common, self.sample_rate // common
        if step == step_out:
            values = self._mixed(sound.read(start, start + length))
        else:
            import soxr

            # Each `step` samples of the file one of them is in step with one of the resampled ones.
            margin = _MARGIN * max(1, math.ceil(step / step_out))
            begin = max(0, start * step // step_out - margin) // step * step
            end = min(sound.frames, -(-(start + length) * step // step_out) + margin)
            values = self._mixed(sound.read(begin, end))
            first = start - begin // step * step_out
            values = soxr.resample(values, sound.rate, self.sample_rate)[first : first + length]
        return torch.from_numpy(np.ascontiguousarray(values.T.clip(-1, 1)))

    def _mixed(self, values: Float[np.ndarray, "t c"]) -> Float[np.ndarray, "t c2"]:
        channels = values.shape[1]
        if channels == self.channels:
            return values
        if self.channels == 1:
            total = values[:, :1].copy()
            for number in range(1, channels):  # ten times as fast as a mean over so short an axis
                total += values[:, number : number + 1]
            return total / channels
        if channels == 1:
            return values.repeat(self.channels, axis=1)
        raise BadSampleError(f"{channels} channels do not fit data.channels={self.channels}")


@runtime_checkable
class File(Protocol):
    """What is used of ``soundfile.SoundFile``."""

    format: str
    subtype: str
    samplerate: int
    channels: int
    frames: int

    def seek(self, frames: int) -> int:
        """Go to a sample."""

    def read(self, frames: int, dtype: str, always_2d: bool) -> Float32[np.ndarray, "t c"]:
        """Decode so many samples from there."""


@final
class OpenSound:
    """An open file.

    Args:
        file: As soundfile opens it.
        encoded: Its content.

    Attributes:
        suffix: Of its format.
        subtype: How its samples are coded, by libsndfile's word.
        rate: In Hz.
        channels: How many it has.
        frames: Samples of each channel.

    Raises:
        BadSampleError: If it is of another format, or does not say how long it is.
    """

    def __init__(self, file: File, encoded: bytes) -> None:
        if file.format not in _SUFFIXES:
            raise BadSampleError(_NO_SOUND)
        if file.frames == _UNKNOWN:
            raise BadSampleError("its header does not say how long it is")
        self.suffix = _SUFFIXES[file.format]
        self.subtype, self.channels = file.subtype, file.channels
        self.rate, self.frames = file.samplerate, file.frames
        self._file = file
        self._whole = None
        if self.subtype.startswith("MPEG"):
            # A frame of an mp3 needs bits of earlier ones, which a seek leaves out.
            self._whole = file.read(self.frames, dtype="float32", always_2d=True)
            if len(self._whole) < self.frames and _says_length(encoded):
                self._refuse_cut(len(self._whole))
            self.frames = len(self._whole)

    @property
    def mode(self) -> str:
        """Rate, channels and coding, for people."""
        channels = {1: "mono", 2: "stereo"}.get(self.channels, f"{self.channels} channels")
        return f"{self.rate} Hz {channels} {self.subtype}"

    def count(self, rate: int) -> int:
        """Return how many samples it has at another rate, as soxr rounds."""
        return (2 * self.frames * rate + self.rate) // (2 * self.rate)

    def read(self, begin: int, end: int) -> Float32[np.ndarray, "t c"]:
        """Decode from one sample up to another.

        Raises:
            BadSampleError: If some are missing, NaN or infinite.
        """
        if self._whole is not None:
            return self._whole[begin:end]
        if begin:
            self._file.seek(begin)
        values = self._file.read(end - begin, dtype="float32", always_2d=True)
        if len(values) < end - begin:
            self._refuse_cut(begin + len(values))
        if not np.isfinite(values).all():
            raise BadSampleError("some values are NaN or infinite")
        return values

    def _refuse_cut(self, there: int) -> None:
        raise BadSampleError(f"it is cut off: {there} of {self.frames} samples are there")


def look_at_sound(encoded: bytes) -> tuple[tuple[int, int], str]:
    """Tell the samples of a channel, their rate and the mode of a sound.

    Raises:
        BadSampleError: If it cannot be opened.
    """
    with open_sound(encoded) as sound:
        return (sound.frames, sound.rate), sound.mode


@contextmanager
def open_sound(encoded: bytes) -> Iterator[OpenSound]:
    """Open a file; within, errors about it are a BadSampleError of one line."""
    import soundfile

    if not encoded:
        raise BadSampleError("the file is empty")
    _refuse_missing_end(encoded)
    try:
        plain = _plain_wav(encoded)
        if plain is not None:
            yield OpenSound(plain, encoded)
            return
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            # After each read soundfile would seek to where the file is, and libsndfile searches.
            file.seekable = lambda: False
            yield OpenSound(file, encoded)
    except BadSampleError:
        raise
    except soundfile.LibsndfileError as error:
        if error.code in _UNRECOGNIZED:
            raise BadSampleError(_NO_SOUND) from None
        reason = error.error_string.strip() or "damaged"
        raise BadSampleError(f"cannot be decoded: {reason}") from error
    except Exception as error:  # such as a MemoryError for the length that a header claims
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadSampleError(f"cannot be decoded: {lines[0]}") from error


@final
class _PlainWav:
    """A wav of 16 bits, which numpy reads several times as fast as libsndfile does from memory.

    Args:
        rate: In Hz.
        values: Its samples.
    """

    format, subtype = "WAV", "PCM_16"

    def __init__(self, rate: int, values: Int16[np.ndarray, "t c"]) -> None:
        self.samplerate, (self.frames, self.channels) = rate, values.shape
        self._values, self._first = values, 0

    def seek(self, frames: int) -> int:
        """Go to a sample."""
        self._first = frames
        return frames

    def read(self, frames: int, dtype: str, always_2d: bool) -> Float32[np.ndarray, "t c"]:
        """Return so many samples from there."""
        assert always_2d, "it is asked for nothing else"
        return self._values[self._first : self._first + frames].astype(dtype) / np.float32(2**15)


def _plain_wav(encoded: bytes) -> _PlainWav | None:
    """Open a wav of 16 bits; None if it is anything else."""
    if not encoded.startswith(b"RIFF"):
        return None
    chunks = {}
    for name, start, size in _chunks(encoded):
        chunks[name] = (start, size)
        if name == b"data":
            break
    start, size = chunks.get(b"fmt ", (0, 0))
    if size < 16 or b"data" not in chunks or start + 16 > len(encoded):
        return None
    tag, channels, rate, _, step, bits = struct.unpack_from("<HHIIHH", encoded, start)
    if (tag, bits) != (1, 16) or not channels * rate or step != 2 * channels:
        return None
    start, size = chunks[b"data"]
    frames = min(size, len(encoded) - start) // step
    values = np.frombuffer(encoded, "<i2", frames * channels, start).reshape(frames, channels)
    return _PlainWav(rate, values)


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk of a wav, where it begins and the size that it claims."""
    number, start = "<I" if encoded.startswith(b"RIFF") else ">I", 12
    while start + 8 <= len(encoded):
        (size,) = struct.unpack_from(number, encoded, start + 4)
        yield encoded[start : start + 4], start + 8, size
        start += 8 + size + size % 2


def _refuse_missing_end(encoded: bytes) -> None:
    """Refuse a wav or ogg whose end is missing, which libsndfile takes for a shorter one."""
    if encoded.startswith((b"RIFF", b"RIFX")):
        for name, start, size in _chunks(encoded):
            there = len(encoded) - start
            if name == b"data" and there < size < _PLACEHOLDER:
                raise BadSampleError(
                    f"it is cut off: {there} of {size} bytes of its samples are there"
                )
            if name == b"data":
                return
    elif encoded.startswith(_OGG):
        page = encoded.rfind(_OGG)
        sizes = page + _OGG_HEADER
        begin = sizes + encoded[sizes - 1] if sizes <= len(encoded) else len(encoded) + 1
        if begin + sum(encoded[sizes:begin]) > len(encoded):
            raise BadSampleError("it is cut off in its last page")


def _says_length(encoded: bytes) -> bool:
    """Tell whether the first frame of an mp3 says how many frames follow."""
    start = 0
    if encoded.startswith(b"ID3"):  # its size has 7 bits a byte
        start = 10 + sum(byte << 7 * place for place, byte in enumerate(encoded[9:5:-1]))
    return any(mark in encoded[start : start + 64] for mark in _MP3_COUNTS)
