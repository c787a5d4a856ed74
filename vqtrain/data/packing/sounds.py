"""Packs of sounds: each is decoded whole, and encoded again if that is asked."""

import io
from dataclasses import dataclass
from typing import Annotated, final

import numpy as np
from jaxtyping import Float32

from vqtrain.data.decoding.sounds import OpenSound, open_sound
from vqtrain.data.media import SOUND
from vqtrain.data.packing.base import Found, Member, PackSettings
from vqtrain.errors import BadSampleError, require
from vqtrain.ranges import at_least, at_most, one_of

# Formats that can be written, by the word that a user writes.
FORMATS = ("keep", "flac")
# What FLAC holds.
LARGEST_RATE = 655_350

# Codings that keep more than 16 bits; FLAC has up to 24.
_DEEP = ("PCM_24", "PCM_32", "FLOAT", "DOUBLE")


@final
@dataclass(frozen=True, kw_only=True)
class SoundPack(PackSettings):
    """The settings of a pack of sounds.

    Attributes:
        format: ``keep`` for the files as they are, ``flac`` to encode others again: with 24 bits
            if they have more than 16, else 16.
        sample_rate: In Hz, of what is encoded again; None keeps that of each file.

    Raises:
        ConfigError: If a value is invalid.
    """

    media = SOUND

    format: Annotated[str, one_of(*FORMATS)]
    sample_rate: Annotated[int, at_least(1), at_most(LARGEST_RATE)] | None

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        super().__post_init__()
        require(
            self.sample_rate is None or self.format == "flac",
            f"sample_rate={self.sample_rate} needs format=flac, which encodes again",
        )

    def examine(self, source: bytes) -> Found:
        """Decode all of a sound; its size is its samples and their rate."""
        with open_sound(source) as sound:
            values = sound.read(0, sound.frames)
            if not len(values):
                raise BadSampleError("it has no samples")
            member = (sound.suffix, source)
            is_at_rate = self.sample_rate in (None, sound.rate)
            if self.format == "flac" and (sound.suffix != "flac" or not is_at_rate):
                member = _encode(values, sound, self.sample_rate or sound.rate)
            return Found(size=(sound.frames, sound.rate), mode=sound.mode, member=member)

    def rank(self, size: tuple[int, ...]) -> tuple[int | float, ...]:
        """Return the time that it lasts."""
        frames, rate = size
        return (frames / rate,)

    def shown(self, size: tuple[int, ...]) -> str:
        """Write the time that it lasts."""
        frames, rate = size
        return f"{frames / rate:.3f} s"


def _encode(values: Float32[np.ndarray, "t c"], sound: OpenSound, rate: int) -> Member:
    import soundfile
    import soxr

    if rate != sound.rate:
        values = soxr.resample(values, sound.rate, rate)
    bits = 24 if sound.subtype in _DEEP else 16
    # Not libsndfile's own rounding, which scales by one step less than it reads with.
    levels = np.rint(values.astype(np.float64) * 2 ** (bits - 1))
    levels = levels.clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int32) << (32 - bits)
    file = io.BytesIO()
    soundfile.write(file, levels, rate, format="FLAC", subtype=f"PCM_{bits}")
    return "flac", file.getvalue()
