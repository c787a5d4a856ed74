"""What packs of all media share: the settings, and what is found in one sample."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, final

from vqtrain.data.media import Media
from vqtrain.ranges import FINITE, Range, above, check_fields, within

AUTO = Range("auto", lambda value: value == "auto", ("auto",))

# Name of a field and its bytes.
Member = tuple[str, bytes]


@final
@dataclass(frozen=True, kw_only=True)
class Found:
    """What is found in one sample, and what is written of it.

    Attributes:
        size: In whole numbers, as the media measure it.
        mode: The kind of its values.
        member: The field that is written.
    """

    size: tuple[int, ...]
    mode: str
    member: Member


@dataclass(frozen=True, kw_only=True)
class PackSettings(ABC):
    """The settings that decide the bytes of a pack, besides its samples.

    Attributes:
        media: What the samples are of.
        shard_size: Largest size of a shard in MB; a larger sample gets its own shard.
        val: Share held out for validation, in [0, 0.5], or ``auto`` for that of ``hold_out``.

    Raises:
        ConfigError: If a value is invalid.
    """

    media: ClassVar[Media]

    shard_size: Annotated[float, above(0), FINITE]
    val: Annotated[float, within(0, 0.5)] | Annotated[str, AUTO]

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_fields(self, "")

    @abstractmethod
    def examine(self, source: bytes) -> Found:
        """Check a sample, and encode it again if that is asked.

        Raises:
            BadSampleError: If it cannot be decoded.
        """

    @abstractmethod
    def rank(self, size: tuple[int, ...]) -> tuple[int | float, ...]:
        """Return by what sizes are sorted."""

    @abstractmethod
    def shown(self, size: tuple[int, ...]) -> str:
        """Write a size for people."""
