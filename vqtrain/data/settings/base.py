"""What the settings of all kinds of data share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from vqtrain.data.decoding.base import Transform
from vqtrain.data.media import Media
from vqtrain.errors import ConfigError
from vqtrain.ops.pixels import ValueRange
from vqtrain.ranges import at_least, check_fields, one_of, within

SAMPLINGS = ("permuted", "resampled")


@dataclass(frozen=True, kw_only=True)
class DataSettings(ABC):
    """The keys of the config group ``data`` that all kinds have.

    Attributes:
        media: What the samples are of.
        train: Sources to train on.
        val: Sources to validate on, or ``auto``.
        sampling: ``permuted`` for every sample once per epoch, ``resampled`` for random draws.
        channels: Of a sample.
        batch_size: Samples per batch and process.
        num_workers: Processes that load samples, per training process; 0 loads in the training
            process itself.
        max_bad_fraction: The largest share of bad samples, in [0, 1]; above it a run stops.

    Raises:
        ConfigError: If a value is invalid.
    """

    media: ClassVar[Media]

    train: str | list[str | dict[str, object]]
    val: str | list[str | dict[str, object]]
    sampling: Annotated[str, one_of(*SAMPLINGS)]
    channels: Annotated[int, at_least(1)]
    batch_size: Annotated[int, at_least(1)]
    num_workers: Annotated[int, at_least(0)]
    max_bad_fraction: Annotated[float, within(0, 1)]

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_sources("data.train", self.train)
        check_sources("data.val", self.val)
        check_fields(self, "data")

    @property
    @abstractmethod
    def transform(self) -> Transform:
        """How encoded samples become tensors."""

    @property
    @abstractmethod
    def size_key(self) -> str:
        """The keys that set the size of a sample, with their values."""

    @property
    @abstractmethod
    def size_text(self) -> str:
        """The size of a sample, for people."""

    @property
    def context(self) -> Mapping[str, object]:
        """What losses may ask of the data by name."""
        return {}

    @property
    def sample_size(self) -> tuple[int, ...]:
        """The sizes of the axes of a sample that the network sees."""
        return self.transform.sample_size

    @property
    def pixel_range(self) -> ValueRange | None:
        """The smallest and the largest value of a sample, or None for 0 to 255."""
        return self.transform.range


def check_sources(key: str, value: object) -> None:
    """Refuse what names no samples.

    Args:
        key: ``data.train`` or ``data.val``.
        value: What it holds.

    Raises:
        ConfigError: If it is not set, or neither a source nor a list of sources.
    """
    # A path is taken as typed, also one that is called null.
    if value is None or (value == "null" and not Path(value).exists()):
        raise ConfigError(f"{key} is not set: give a folder, {key}=FOLDER")
    sources = value if isinstance(value, list) else [value]
    if not sources or not all(source and isinstance(source, str | dict) for source in sources):
        raise ConfigError(
            f"{key} must be demo, a folder, a glob, tars, a URL or a list of those, got {value!r}"
        )
