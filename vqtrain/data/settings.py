"""The settings under ``data``, checked before anything starts."""

import math
from dataclasses import dataclass
from typing import Annotated, final

from PIL import ImageColor

from vqtrain.data.decoding.base import Transform
from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.errors import ConfigError, require
from vqtrain.ranges import Range, at_least, at_most, check_fields, one_of, within
from vqtrain.shapes import sides

SAMPLINGS = ("permuted", "resampled")
ASPECTS = ("fixed", "buckets")
# A square with this side takes 0.2 GB.
LARGEST_SIZE = 8192
Side = Annotated[int, at_least(1), at_most(LARGEST_SIZE)]
ImageSize = Side | Annotated[list[Side], Range("[height,width]", lambda both: len(both) == 2)]


@final
@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The keys of the config group ``data``.

    Attributes:
        train: IMAGES to train on.
        val: IMAGES to validate on, or ``auto``.
        sampling: ``permuted`` for every image once per epoch, ``resampled`` for random draws.
        image_size: Side of the squares that the network sees, or their height and width, in px.
        aspect: ``fixed`` for images of ``image_size``; ``buckets`` for sizes of about that area, of
            which each training image takes the one that is nearest to its own shape.
        channels: 3 for color, 1 for gray, or the number that the files have.
        range: The values of black and white in the files' own units; None for 0 to 255.
        background: The color under transparent pixels, a name or ``#rrggbb``.
        crop: How an image becomes one of that size, a key of ``CROPS``.
        flip: Whether to mirror half of the training images left to right.
        batch_size: Images per batch and process.
        num_workers: Processes that load images, per training process; 0 loads in the training
            process itself.
        max_bad_fraction: The largest share of bad images, in [0, 1]; above it a run stops.

    Raises:
        ConfigError: If a value is invalid.
    """

    train: str | list[str | dict[str, object]]
    val: str | list[str | dict[str, object]]
    sampling: Annotated[str, one_of(*SAMPLINGS)]
    image_size: ImageSize
    channels: Annotated[int, at_least(1)]
    range: list[int | float] | None
    background: str
    crop: Annotated[str, one_of(*CROPS)]
    flip: bool
    batch_size: Annotated[int, at_least(1)]
    num_workers: Annotated[int, at_least(0)]
    max_bad_fraction: Annotated[float, within(0, 1)]
    aspect: Annotated[str, one_of(*ASPECTS)] = "fixed"

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        _check_images("data.train", self.train)
        _check_images("data.val", self.val)
        _check_range(self.range)
        check_fields(self, "data")
        _check_background(self.background)
        require(
            self.aspect == "fixed" or self.sampling == "permuted",
            f"data.aspect={self.aspect} needs data.sampling=permuted, got {self.sampling}",
        )

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width of the images that the network sees, in px."""
        return sides(self.image_size)

    @property
    def transform(self) -> Transform:
        """How images become arrays."""
        return ImageTransform(
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


def _check_images(name: str, value: object) -> None:
    sources = value if isinstance(value, list) else [value]
    if not sources or not all(source and isinstance(source, str | dict) for source in sources):
        raise ConfigError(
            f"{name} must be demo, a folder, a glob, tars, a URL or a list of those, got {value!r}"
        )


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


def _check_background(value: str) -> None:
    try:
        ImageColor.getrgb(value)
    except ValueError:
        raise ConfigError(
            f'data.background must be a color such as white or "#808080", got {value!r}'
        ) from None
