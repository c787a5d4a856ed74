"""The settings of images."""

import math
from dataclasses import dataclass
from typing import Annotated, final

from PIL import ImageColor

from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.media import IMAGE
from vqtrain.data.settings.base import DataSettings
from vqtrain.errors import ConfigError, require
from vqtrain.ranges import Range, at_least, at_most, one_of
from vqtrain.shapes import in_px, typed

ASPECTS = ("fixed", "buckets")
# A square with this side takes 0.2 GB.
LARGEST_SIZE = 8192
Side = Annotated[int, at_least(1), at_most(LARGEST_SIZE)]
ImageSize = Side | Annotated[list[Side], Range("[height,width]", lambda both: len(both) == 2)]


@final
@dataclass(frozen=True, kw_only=True)
class ImageData(DataSettings):
    """The keys of ``data`` for images.

    Attributes:
        image_size: Side of the squares that the network sees, or their height and width, in px.
        aspect: ``fixed`` for images of ``image_size``; ``buckets`` for sizes of about that area, of
            which each training image takes the one that is nearest to its own shape.
        channels: 3 for color, 1 for gray, or the number that the files have.
        range: The values of black and white in the files' own units; None for 0 to 255.
        background: The color under transparent pixels, a name or ``#rrggbb``.
        crop: How an image becomes one of that size, a key of ``CROPS``.
        flip: Whether to mirror half of the training images left to right.

    Raises:
        ConfigError: If a value is invalid.
    """

    media = IMAGE

    image_size: ImageSize
    range: list[int | float] | None
    background: str
    crop: Annotated[str, one_of(*CROPS)]
    flip: bool
    aspect: Annotated[str, one_of(*ASPECTS)] = "fixed"

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        _check_range(self.range)
        super().__post_init__()
        check_background(self.background)
        require(
            self.aspect == "fixed" or self.sampling == "permuted",
            f"data.aspect={self.aspect} needs data.sampling=permuted, got {self.sampling}",
        )

    @property
    def transform(self) -> ImageTransform:
        """How images become arrays."""
        return ImageTransform(
            image_size=self.image_size,
            channels=self.channels,
            crop=self.crop,
            flip=self.flip,
            range=None if self.range is None else (float(self.range[0]), float(self.range[1])),
            background=self.background,
        )

    @property
    def size_key(self) -> str:
        """The key of the size, with its value."""
        return f"data.image_size={typed(self.image_size)}"

    @property
    def size_text(self) -> str:
        """Height and width, for people."""
        return in_px(self.image_size)


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


def check_background(value: str) -> None:
    """Refuse what is no color."""
    try:
        ImageColor.getrgb(value)
    except ValueError:
        raise ConfigError(
            f'data.background must be a color such as white or "#808080", got {value!r}'
        ) from None
