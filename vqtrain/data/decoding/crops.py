"""How an image of any size becomes one of a fixed size: one geometry per value of ``data.crop``.

With a generator a rule crops at random, for training; with None it takes the center, for
validation. Every rule resamples by antialiased bicubic; where published code does otherwise, its
rule says so. Rules were published for squares; of another crop, the "short side" of an image is
the one with less to spare. Rules and the tokenizers whose public code trains on ImageNet by the
same boxes:

- ``resize``: 1d-tokenizer; RQ-VAE; enhancing-transformers (a ViT-VQGAN of third parties),
  Open-MAGVIT2 and taming-transformers, these three by bilinear, the last two without mirroring.
- ``adm``: LlamaGen; its evaluation is guided-diffusion's.
- ``maskbit``: MaskBit, by bilinear.
- ``ldm``: the autoencoder configs of latent-diffusion, by area, without mirroring.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from vqtrain.errors import BadSampleError
from vqtrain.shapes import by

# Share of the image's area, and width / height relative to the crop's, that random_resized draws
# from.
AREA_FRAC = (0.5, 1.0)
ASPECT_RATIO = (3 / 4, 4 / 3)
# The same of MaskBit; its ratios are those above.
MASKBIT_AREA_FRAC = (0.8, 1.0)
# Share of the resized image's short side that the crop of LlamaGen takes.
ADM_SIDE_FRAC = (0.8, 1.0)
# Share of the image's short side that the crop of latent-diffusion takes.
LDM_SIDE_FRAC = (0.5, 1.0)


@final
@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Which part of an image is kept, and how it is resized.

    Attributes:
        box: Left, top, width and height of the part that is used, in px of the image.
        size: Width and height that the box is resized to, in px.
        offset: Left and top of the crop in the resized box, in px.
        halve: Whether to halve by averages first, as long as the box is at least twice ``size``.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]
    offset: tuple[int, int]
    halve: bool = False

    def reduction(self) -> float:
        """Return how many pixels along a side become one; below 1 it enlarges."""
        return min(self.box[2] / self.size[0], self.box[3] / self.size[1])

    def reduced(self, factor: int, *, width: int, height: int) -> "Geometry":
        """Describe the same crop in an image that was decoded ``factor`` times smaller.

        Args:
            factor: 2, 4 or 8.
            width: Of the smaller image, in px.
            height: Of the smaller image, in px.
        """
        left, top = (
            min(round(start / factor), n - 1)
            for start, n in zip(self.box, (width, height), strict=False)
        )
        right = min(max(round((self.box[0] + self.box[2]) / factor), left + 1), width)
        bottom = min(max(round((self.box[1] + self.box[3]) / factor), top + 1), height)
        return replace(self, box=(left, top, right - left, bottom - top))


# Width and height of an image, and those of the crop, in px.
Crop = Callable[[int, int, tuple[int, int], np.random.Generator | None], Geometry]


def native(
    width: int, height: int, target: tuple[int, int], generator: np.random.Generator | None
) -> Geometry:
    """Crop native pixels, which keeps the finest detail of large images.

    An image that is smaller than the crop is enlarged first.
    """
    if width < target[0] or height < target[1]:
        return resize(width, height, target, generator)
    left, top = _offset(width, height, target, generator)
    return Geometry(box=(left, top, *target), size=target, offset=(0, 0))


def resize(
    width: int, height: int, target: tuple[int, int], generator: np.random.Generator | None
) -> Geometry:
    """Resize until one side is that of the crop, then crop the other, which keeps whole objects.

    References:
        torchvision's Resize and CenterCrop, for validation.
    """
    side = _tight_side(width, height, target)
    part, whole = target[side], (width, height)[side]
    size = (width * part // whole, height * part // whole)
    _check_thin(width, height, size, target)
    return Geometry(box=(0, 0, width, height), size=size, offset=_offset(*size, target, generator))


def random_resized(
    width: int, height: int, target: tuple[int, int], generator: np.random.Generator | None
) -> Geometry:
    """Resize a random part of random size and aspect ratio; for validation, as ``resize``.

    References:
        Szegedy et al. 2014, arXiv:1409.4842, section 6; torchvision's RandomResizedCrop.
        Deviation: at least half the area instead of 8 %, as a tokenizer must see whole objects.
    """
    return _random_part(width, height, target, AREA_FRAC, generator)


def maskbit(
    width: int, height: int, target: tuple[int, int], generator: np.random.Generator | None
) -> Geometry:
    """Resize a random part of at least 80 % of the area; for validation, as ``resize``.

    References:
        Weber et al. 2024, arXiv:2409.16211, and its code. Deviation: bicubic instead of bilinear.
    """
    return _random_part(width, height, target, MASKBIT_AREA_FRAC, generator)


def adm(
    width: int, height: int, target: tuple[int, int], generator: np.random.Generator | None
) -> Geometry:
    """Resize the short side to 1 to 1.25 times the crop's, then crop; to 1 for validation.

    An image of at least twice that size is halved by averages first, as often as it takes.

    References:
        Dhariwal and Nichol 2021, arXiv:2105.05233, its code; Sun et al. 2024, arXiv:2406.06525,
        its code for training tokenizers.
    """
    side = _tight_side(width, height, target)
    length = target[side]
    if generator is not None:
        least, most = (math.ceil(length / fraction) for fraction in reversed(ADM_SIDE_FRAC))
        length = int(generator.integers(least, most, endpoint=True))
    halved = (width, height)
    while halved[side] >= 2 * length:
        halved = (halved[0] // 2, halved[1] // 2)
    scale = length / halved[side]
    # Halving an odd number may leave the other side a pixel short of a crop that is no square.
    size = (max(round(halved[0] * scale), target[0]), max(round(halved[1] * scale), target[1]))
    _check_thin(width, height, size, target)
    offset = _offset(*size, target, generator)
    if generator is None:
        offset = ((size[0] - target[0]) // 2, (size[1] - target[1]) // 2)
    return Geometry(box=(0, 0, width, height), size=size, offset=offset, halve=True)


def ldm(
    width: int, height: int, target: tuple[int, int], generator: np.random.Generator | None
) -> Geometry:
    """Resize a random part of at least half the short side; for validation, as ``resize``.

    References:
        Rombach et al. 2022, arXiv:2112.10752, its code. Deviation: antialiased bicubic instead of
        area; the center for validation, where that code crops at random as well.
    """
    if generator is None:
        return resize(width, height, target, None)
    side = _tight_side(width, height, target)
    length = max(1, int((width, height)[side] * generator.uniform(*LDM_SIDE_FRAC)))
    sizes = (max(1, length * target[0] // target[side]), max(1, length * target[1] // target[side]))
    left, top = _offset(width, height, sizes, generator)
    return Geometry(box=(left, top, *sizes), size=target, offset=(0, 0))


CROPS: dict[str, Crop] = {
    "native": native,
    "resize": resize,
    "random_resized": random_resized,
    "adm": adm,
    "maskbit": maskbit,
    "ldm": ldm,
}


def crop(
    pixels: Shaped[Tensor, "h w c"], geometry: Geometry, target: tuple[int, int]
) -> Shaped[Tensor, "c h_kept w_kept"]:
    """Resample a part of an image by antialiased bicubic.

    Agrees with Pillow's bicubic, rows before columns, to a level or two: the two round their
    fixed-point numbers differently. Pillow begins with columns where that is less work, which shows
    only on noise.

    Args:
        pixels: uint8 or float32; floats may overshoot their range by some percent.
        geometry: A rule's answer for this width and height.
        target: Width and height of the crop, in px.

    Returns:
        Of the same dtype; in memory the channels of a pixel are adjacent.
    """
    left, top, width, height = geometry.box
    pixels = pixels[top : top + height, left : left + width]
    if geometry.halve:
        while min(pixels.shape[:2]) >= 2 * min(geometry.size):
            pixels = _halved(rearrange(pixels, "h w c -> w h c"))  # its columns, first as in Pillow
            pixels = _halved(rearrange(pixels, "w h c -> h w c"))
    size = (geometry.size[1], geometry.size[0])
    if pixels.shape[:2] != size:
        # Channels last in memory is what the vectorized resampler of uint8 is written for.
        # Not einops: here and below its 20 microseconds a call would be one in a hundred.
        batch = pixels.contiguous().permute(2, 0, 1)[None]
        batch = F.interpolate(batch, size=size, mode="bicubic", antialias=True)
        pixels = batch[0].permute(1, 2, 0)
    left, top = geometry.offset
    pixels = pixels[top : top + target[1], left : left + target[0]]
    return pixels.permute(2, 0, 1)


def crop_frames(
    frames: Sequence[Shaped[Tensor, "h w c"]], geometry: Geometry, target: tuple[int, int]
) -> Shaped[Tensor, "t h_kept w_kept c"]:
    """Resample the same part of several images at once, as ``crop`` does with each.

    Args:
        frames: Images of one size.
        geometry: As for ``crop``.
        target: As for ``crop``.
    """
    if geometry.halve:
        return torch.stack([crop(frame, geometry, target).permute(1, 2, 0) for frame in frames])
    left, top, width, height = geometry.box
    parts = torch.stack([frame[top : top + height, left : left + width] for frame in frames])
    size = (geometry.size[1], geometry.size[0])
    if parts.shape[1:3] != size:
        batch = parts.permute(0, 3, 1, 2)
        batch = F.interpolate(batch, size=size, mode="bicubic", antialias=True)
        parts = batch.permute(0, 2, 3, 1)
    left, top = geometry.offset
    return parts[:, top : top + target[1], left : left + target[0]]


def _halved(pixels: Shaped[Tensor, "h w c"]) -> Shaped[Tensor, "h2 w c"]:
    """Average pairs of rows, and three in the middle of an odd number, as Pillow's BOX does.

    Of 4 n + 1 rows the one in the middle is on the edge between two means: it goes to the first,
    where in Pillow the rounding of floats decides.
    """
    count = pixels.shape[0] // 2
    rows = pixels if pixels.is_floating_point() else pixels.to(torch.int16)
    if len(rows) % 2 == 0:
        return _mean(rows[0::2] + rows[1::2], 2).to(pixels.dtype)
    first = 2 * ((count - 1) // 2)
    last = first + 2
    three = rows[first] + rows[first + 1] + rows[last]
    means = (
        _mean(rows[0:first:2] + rows[1:first:2], 2),
        _mean(three[None], 3),
        _mean(rows[last + 1 :: 2] + rows[last + 2 :: 2], 2),
    )
    return torch.cat(means).to(pixels.dtype)


def _mean(total: Shaped[Tensor, "h w c"], count: int) -> Shaped[Tensor, "h w c"]:
    if total.is_floating_point():
        return total / count
    return (2 * total + count) // (2 * count)  # rounded half up


def _tight_side(width: int, height: int, target: tuple[int, int]) -> int:
    """Return 0 if a crop of the largest size takes the whole width, 1 if it takes the height."""
    return 0 if width * target[1] <= height * target[0] else 1


def _offset(
    width: int, height: int, target: tuple[int, int], generator: np.random.Generator | None
) -> tuple[int, int]:
    spare_width, spare_height = width - target[0], height - target[1]
    if generator is None:
        return round(spare_width / 2), round(spare_height / 2)
    left = int(generator.integers(spare_width, endpoint=True))
    return left, int(generator.integers(spare_height, endpoint=True))


def _check_thin(width: int, height: int, size: tuple[int, int], target: tuple[int, int]) -> None:
    # A thin image would grow to more pixels than Pillow expects of any file.
    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise BadSampleError(f"{width} x {height} px is too thin for crops of {by(target)} px")


def _random_part(
    width: int,
    height: int,
    target: tuple[int, int],
    area_frac: tuple[float, float],
    generator: np.random.Generator | None,
) -> Geometry:
    if generator is None:
        return resize(width, height, target, None)
    ratios = [ratio * (target[0] / target[1]) for ratio in ASPECT_RATIO]
    box = _random_box(width, height, ratios, area_frac, generator)
    return Geometry(box=box, size=target, offset=(0, 0))


def _random_box(
    width: int,
    height: int,
    ratios: Sequence[float],
    area_frac: tuple[float, float],
    generator: np.random.Generator,
) -> tuple[int, int, int, int]:
    low, high = map(math.log, ratios)
    for _ in range(10):
        area = width * height * generator.uniform(*area_frac)
        ratio = math.exp(generator.uniform(low, high))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(generator.integers(width - box_width, endpoint=True))
            top = int(generator.integers(height - box_height, endpoint=True))
            return left, top, box_width, box_height
    # Too long an image for such boxes: the largest part in its middle with an allowed ratio.
    box_width = min(width, round(height * ratios[1]))
    box_height = min(height, round(width / ratios[0]))
    return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height
