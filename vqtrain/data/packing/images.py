"""Packs of images: each is checked, and encoded again if that is asked."""

import io
from dataclasses import dataclass
from typing import Annotated, final

import numpy as np
import tifffile
from einops import rearrange
from PIL import Image, ImageOps

from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.decoding.images import NPY, ImageTransform, one_line, open_image, read_npy
from vqtrain.data.media import IMAGE
from vqtrain.data.packing.base import Found, Member, PackSettings
from vqtrain.data.settings.image import ImageSize
from vqtrain.errors import require
from vqtrain.ranges import one_of, within

# Formats that can be written, by the word that a user writes.
FORMATS = ("keep", "jpeg", "png", "webp", "raw")
DEFAULT_CROP, DEFAULT_QUALITY = "resize", 95

# Modes of one channel, besides those of more than 8 bits: I, I;16 and F.
_GRAY = ("1", "L", "LA", "La")
# A field's name by the detected format, not by the suffix of the file.
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}


@final
@dataclass(frozen=True, kw_only=True)
class ImagePack(PackSettings):
    """The settings of a pack of images.

    Attributes:
        image_size: Largest short side in px; larger images are reduced to it. None keeps all. With
            raw the side of a square in px, or height and width.
        crop: How raw crops an image to that size, a key of ``CROPS``, as for validation.
        format: keep, jpeg, png, webp, or raw for cropped pixels as arrays.
        quality: Of JPEG and WebP for re-encoded images, in 1..100.

    Raises:
        ConfigError: If a value is invalid.
    """

    media = IMAGE

    image_size: ImageSize | None
    crop: Annotated[str, one_of(*CROPS)]
    format: Annotated[str, one_of(*FORMATS)]
    quality: Annotated[int, within(1, 100)]

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        super().__post_init__()
        if self.format == "raw":
            require(
                self.image_size is not None,
                "format=raw stores pixels of one size: give image_size, such as 256",
            )
            return
        require(self.crop == DEFAULT_CROP, f"crop={self.crop} needs format=raw, which alone crops")
        require(
            not isinstance(self.image_size, list),
            f"image_size={self.image_size} needs format=raw, which alone crops: give the largest "
            "short side in px, such as 256",
        )

    def examine(self, source: bytes) -> Found:
        """Decode an image; its size is width and height, upright, and of raw as it is written."""
        with one_line(source):
            opened = open_image(source)
            if opened is not None:
                mode = opened.mode
                if self.format == "raw":
                    is_gray = mode in _GRAY or mode.startswith(("I", "F"))
                    return _crop(source, self, channels=1 if is_gray else 3, mode=mode)
                image = ImageOps.exif_transpose(opened)
                member = _encode(source, opened.format or "", image, self)
                return Found(size=image.size, mode=mode, member=member)
            is_npy = source.startswith(NPY)
            array = read_npy(source) if is_npy else tifffile.imread(io.BytesIO(source))
            if array.ndim not in (2, 3):
                raise ValueError(f"an array of {array.ndim} axes is no image")
            height, width = array.shape[:2]
            mode = f"{array.dtype} {'x'.join(map(str, array.shape[2:])) or 1}"
            if self.format == "raw":
                is_gray = array.shape[2:] in ((), (1,))
                return _crop(source, self, channels=1 if is_gray else 3, mode=mode)
            member = ("npy" if is_npy else "tif", source)
            return Found(size=(width, height), mode=mode, member=member)

    def rank(self, size: tuple[int, ...]) -> tuple[int | float, ...]:
        """Return the short side first."""
        return (min(size), max(size), *size)

    def shown(self, size: tuple[int, ...]) -> str:
        """Write width and height."""
        return "{} x {}".format(*size)


def _crop(source: bytes, settings: ImagePack, *, channels: int, mode: str) -> Found:
    """Crop an image, and write its pixels as an array [h, w, c]."""
    assert settings.image_size is not None, "checked with the settings"
    transform = ImageTransform(
        image_size=settings.image_size,
        channels=channels,
        crop=settings.crop,
        flip=False,
        range=None,
        background="white",
    )
    pixels = rearrange(transform.decode(source, None), "c h w -> h w c").numpy()
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(pixels))
    size = (pixels.shape[1], pixels.shape[0])
    return Found(size=size, mode=mode, member=("npy", file.getvalue()))


def _encode(source: bytes, format_found: str, image: Image.Image, settings: ImagePack) -> Member:
    """Return the name and the bytes of the image's field; the source's if nothing changes."""
    suffix = _SUFFIXES.get(format_found, format_found.lower())
    wanted = {"keep": suffix, "jpeg": "jpg"}.get(settings.format, settings.format)
    size, short = settings.image_size, min(image.size)
    assert not isinstance(size, list), "checked with the settings"
    is_too_large = size is not None and short > size
    if image.mode.startswith(("I", "F")) or (wanted == suffix and not is_too_large):
        return suffix, source
    if wanted not in ("jpg", "webp"):
        wanted = "png"
    # A color profile of another mode does not describe the new pixels.
    has_profile = image.mode not in ("CMYK", "LAB", "YCbCr")
    profile = image.info.get("icc_profile") if has_profile else None
    image = _to_8_bit(image, keeps_alpha=wanted != "jpg")
    if size is not None and is_too_large:
        width, height = (side * size // short for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    options = {
        "png": {},
        # Without chroma subsampling, which a tokenizer would learn.
        "jpg": {"quality": settings.quality, "subsampling": 0},
        "webp": {"quality": settings.quality},
    }[wanted]
    file = io.BytesIO()
    kind = "JPEG" if wanted == "jpg" else wanted.upper()
    image.save(file, kind, icc_profile=profile, **options)
    return wanted, file.getvalue()


def _to_8_bit(image: Image.Image, *, keeps_alpha: bool) -> Image.Image:
    """Convert to gray or RGB; transparent parts stay transparent or become white."""
    is_gray = image.mode in _GRAY
    if not image.has_transparency_data:
        return image.convert("L" if is_gray else "RGB")
    if keeps_alpha:
        return image.convert("LA" if is_gray else "RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("L" if is_gray else "RGB")
