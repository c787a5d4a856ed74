"""What a user sets under ``data``, checked before anything starts."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import final

from PIL import ImageColor

from vqtrain.data.crops import CROPS
from vqtrain.data.images import Preparation
from vqtrain.data.order import SAMPLINGS
from vqtrain.errors import ConfigError

# A square of so many pixels a side takes 0.2 GB.
LARGEST_SIZE = 8192


@final
@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The keys of the config group ``data``.

    Attributes:
        train: IMAGES to train on.
        val: IMAGES to validate on, or ``auto``.
        sampling: ``permuted`` for every image once an epoch, ``resampled`` for random draws.
        image_size: Side of the square that the network sees, in px.
        channels: 3 for color, 1 for gray, or the number that the files have.
        range: The values of black and white in the files' own units; None for 0 to 255.
        background: The color under transparent pixels, a name or ``#rrggbb``.
        crop: How a picture becomes a square, a key of ``CROPS``.
        flip: Whether to mirror half of the training images left to right.
        batch_size: Images per batch and process.
        num_workers: Processes that load images, per process that trains; 0 loads in that itself.
        max_bad_fraction: The share of images that cannot be read, in [0, 1], above which a run
            stops.

    Raises:
        ConfigError: If a value is impossible.
    """

    train: str | list[str | dict[str, object]]
    val: str | list[str | dict[str, object]]
    sampling: str
    image_size: int
    channels: int
    range: list[int | float] | None
    background: str
    crop: str
    flip: bool
    batch_size: int
    num_workers: int
    max_bad_fraction: float

    def __post_init__(self) -> None:
        """Refuse impossible values, also those of a wrong type, as they come from a user."""
        _check_images("data.train", self.train)
        _check_images("data.val", self.val)
        _check_count("data.image_size", self.image_size, least=1)
        check_largest("data.image_size", self.image_size)
        _check_count("data.batch_size", self.batch_size, least=1)
        _check_count("data.num_workers", self.num_workers, least=0)
        _check_count("data.channels", self.channels, least=1)
        if type(self.flip) is not bool:
            raise ConfigError(f"data.flip must be true or false, got {self.flip!r}")
        _check_choice("data.crop", self.crop, CROPS)
        _check_choice("data.sampling", self.sampling, SAMPLINGS)
        _check_range(self.range)
        _check_background(self.background)
        _check_share("data.max_bad_fraction", self.max_bad_fraction)

    @property
    def preparation(self) -> Preparation:
        """How images become arrays."""
        return Preparation(
            image_size=self.image_size,
            channels=self.channels,
            crop=self.crop,
            flip=self.flip,
            range=self.pixel_range,
            background=self.background,
        )

    @property
    def pixel_range(self) -> tuple[float, float] | None:
        """The values of black and white in the files, or None for 0 to 255."""
        return None if self.range is None else (float(self.range[0]), float(self.range[1]))


def check_largest(name: str, image_size: int) -> None:
    """Refuse squares that no memory holds.

    Raises:
        ConfigError: If they are larger than ``LARGEST_SIZE``.
    """
    if image_size > LARGEST_SIZE:
        raise ConfigError(f"{name} must be at most {LARGEST_SIZE}, got {image_size}")


def _check_images(name: str, value: object) -> None:
    sources = value if isinstance(value, list) else [value]
    if not sources or not all(source and isinstance(source, str | dict) for source in sources):
        raise ConfigError(
            f"{name} must be demo, a folder, a glob, tars, a URL or a list of those, got {value!r}"
        )


def _check_choice(name: str, value: object, choices: Collection[str]) -> None:
    if value not in list(choices):  # a list, as what users write may not be hashable
        near = get_close_matches(str(value), choices, n=1)
        suggestion = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{name} must be one of {', '.join(choices)}, got {value!r}{suggestion}")


def _check_range(value: object) -> None:
    if value is None:
        return
    ends = list(value) if isinstance(value, list | tuple) else []
    are_numbers = all(type(end) in (int, float) and math.isfinite(end) for end in ends)
    if len(ends) != 2 or not are_numbers or ends[0] >= ends[1]:
        raise ConfigError(
            "data.range must be null or two numbers, of black and of white, such as [0,65535]; "
            f"got {value!r}"
        )


def _check_share(name: str, value: object) -> None:
    if type(value) is bool or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ConfigError(f"{name} must be in [0, 1], got {value!r}")


def _check_background(value: object) -> None:
    try:
        ImageColor.getrgb(str(value))
    except ValueError:
        raise ConfigError(
            f'data.background must be a color such as white or "#808080", got {value!r}'
        ) from None


def _check_count(name: str, value: object, *, least: int) -> None:
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")
