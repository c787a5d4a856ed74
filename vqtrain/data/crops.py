"""How a picture of any size becomes a square: one function per value of ``data.crop``.

With a generator a rule crops at random, for training; with None it takes the center, for
validation. Each rule first enlarges a picture that is smaller than the square.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

# Share of the picture's area and width / height that random_resized draws from.
AREA_FRAC = (0.5, 1.0)
ASPECT_RATIO = (3 / 4, 4 / 3)


def native(
    picture: Image.Image, image_size: int, generator: np.random.Generator | None
) -> Image.Image:
    """Crop a square of native pixels, which keeps the finest detail of large pictures."""
    if min(picture.size) < image_size:
        picture = _resize_short_side(picture, image_size)
    return _crop_square(picture, image_size, generator)


def resize(
    picture: Image.Image, image_size: int, generator: np.random.Generator | None
) -> Image.Image:
    """Resize the short side to the square's, then crop, which keeps whole objects.

    References:
        torchvision's Resize and CenterCrop on a PIL image, to the pixel, for validation.
    """
    return _crop_square(_resize_short_side(picture, image_size), image_size, generator)


def random_resized(
    picture: Image.Image, image_size: int, generator: np.random.Generator | None
) -> Image.Image:
    """Resize a random part of random size and aspect ratio; for validation, as ``resize``.

    References:
        Szegedy et al. 2014, arXiv:1409.4842, section 6; torchvision's RandomResizedCrop.
        Deviation: at least half the area instead of 8 %, as a tokenizer must see whole objects.
    """
    if generator is None:
        return resize(picture, image_size, None)
    box = _random_box(picture.width, picture.height, generator)
    return picture.resize((image_size, image_size), Image.Resampling.BICUBIC, box=box)


Crop = Callable[[Image.Image, int, np.random.Generator | None], Image.Image]

CROPS: dict[str, Crop] = {"native": native, "resize": resize, "random_resized": random_resized}


def _crop_square(
    picture: Image.Image, size: int, generator: np.random.Generator | None
) -> Image.Image:
    spare_width, spare_height = picture.width - size, picture.height - size
    if generator is None:
        left, top = round(spare_width / 2), round(spare_height / 2)
    else:
        left = int(generator.integers(spare_width, endpoint=True))
        top = int(generator.integers(spare_height, endpoint=True))
    return picture.crop((left, top, left + size, top + size))


def _resize_short_side(picture: Image.Image, size: int) -> Image.Image:
    short = min(picture.size)
    width, height = (side * size // short for side in picture.size)
    # A thin picture would grow to more pixels than Pillow expects of any file.
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"{picture.width} x {picture.height} px is too thin for squares of {size} px"
        )
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _random_box(
    width: int, height: int, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    low, high = (math.log(ratio) for ratio in ASPECT_RATIO)
    for _ in range(10):
        area = width * height * generator.uniform(*AREA_FRAC)
        ratio = math.exp(generator.uniform(low, high))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(generator.integers(width - box_width, endpoint=True))
            top = int(generator.integers(height - box_height, endpoint=True))
            return left, top, left + box_width, top + box_height
    # Too long a picture for such boxes: the largest part in its middle with an allowed ratio.
    box_width = min(width, round(height * ASPECT_RATIO[1]))
    box_height = min(height, round(width / ASPECT_RATIO[0]))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height
