"""The settings of sounds."""

from dataclasses import dataclass
from typing import Annotated, final

from vqtrain.data.decoding.sounds import SoundTransform
from vqtrain.data.media import SOUND
from vqtrain.data.settings.base import DataSettings
from vqtrain.ranges import at_least, at_most


@final
@dataclass(frozen=True, kw_only=True)
class SoundData(DataSettings):
    """The keys of ``data`` for sounds.

    Attributes:
        sample_rate: In Hz; files of another rate are resampled.
        length: Samples of a sound that the network sees, at that rate.
        channels: 1 for mono, 2 for stereo.

    Raises:
        ConfigError: If a value is invalid.
    """

    media = SOUND

    sample_rate: Annotated[int, at_least(1), at_most(768_000)]
    length: Annotated[int, at_least(1)]

    @property
    def transform(self) -> SoundTransform:
        """How encoded sounds become arrays."""
        return SoundTransform(
            sample_rate=self.sample_rate, channels=self.channels, length=self.length
        )

    @property
    def size_key(self) -> str:
        """The key of the size, with its value."""
        return f"data.length={self.length}"

    @property
    def size_text(self) -> str:
        """Length and rate, for people."""
        seconds = self.length / self.sample_rate
        return f"{self.length:,} samples at {self.sample_rate:,} Hz ({seconds:.2g} s)"
