"""What a user sets under ``data``, checked before anything starts."""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import final

from vqtrain.data.crops import CROPS
from vqtrain.errors import ConfigError


@final
@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The keys of the config group ``data``.

    Attributes:
        train: IMAGES to train on.
        val: IMAGES to validate on, or ``auto``.
        image_size: Side of the square that the network sees, in px.
        channels: 3 for color, 1 for gray.
        crop: How a picture becomes a square: native, resize or random_resized.
        flip: Whether to mirror half of the training images left to right.
        batch_size: Images per batch and process.
        num_workers: Processes that load images, per process that trains; 0 loads in that itself.

    Raises:
        ConfigError: If a value is impossible.
    """

    train: str | list[str]
    val: str | list[str]
    image_size: int
    channels: int
    crop: str
    flip: bool
    batch_size: int
    num_workers: int

    def __post_init__(self) -> None:
        """Refuse impossible values, also those of a wrong type, as they come from a user."""
        _check_images("data.train", self.train)
        _check_images("data.val", self.val)
        _check_count("data.image_size", self.image_size, least=1)
        _check_count("data.batch_size", self.batch_size, least=1)
        _check_count("data.num_workers", self.num_workers, least=0)
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise ConfigError(f"data.channels must be 3 (color) or 1 (gray), got {self.channels!r}")
        if type(self.flip) is not bool:
            raise ConfigError(f"data.flip must be true or false, got {self.flip!r}")
        if self.crop not in list(CROPS):  # a list, as what users write may not be hashable
            near = get_close_matches(str(self.crop), CROPS, n=1)
            suggestion = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"data.crop must be one of {', '.join(CROPS)}, got {self.crop!r}{suggestion}"
            )


def _check_images(name: str, value: object) -> None:
    sources = value if isinstance(value, list) else [value]
    if not sources or not all(isinstance(source, str) and source for source in sources):
        raise ConfigError(
            f"{name} must be demo, a folder, a glob, tars or a list of those, got {value!r}"
        )


def _check_count(name: str, value: object, *, least: int) -> None:
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")
