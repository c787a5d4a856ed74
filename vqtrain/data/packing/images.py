"""One sample of a pack: a checked image, re-encoded if requested, and its fields."""

import io
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, final

import numpy as np
import tifffile
from einops import rearrange
from PIL import Image, ImageOps

from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.decoding.images import NPY, ImageTransform, one_line, open_image, read_npy
from vqtrain.data.faults import Fault
from vqtrain.data.settings.image import ImageSize
from vqtrain.data.sources.fields import Fields
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import BadSampleError, require
from vqtrain.ranges import FINITE, Range, above, check_fields, one_of, within

# Formats that can be written, by the word that a user writes.
FORMATS = ("keep", "jpeg", "png", "webp", "raw")
DEFAULT_CROP = "resize"
AUTO = Range("auto", lambda value: value == "auto", ("auto",))

# Modes of one channel, besides those of more than 8 bits: I, I;16 and F.
_GRAY = ("1", "L", "LA", "La")
# A field's name by the detected format, not by the suffix of the file.
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}

# Name of a field and its bytes.
_Member = tuple[str, bytes]
# Facts about a packed image: its number, digest, offset and size in the shard, width, height and
# mode.
Note = tuple[int, str, int, int, int, int, str]


@final
@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """The settings that decide the bytes of a pack, besides its images.

    Attributes:
        image_size: Largest short side in px; larger images are reduced to it. None keeps all. With
            raw the side of a square in px, or height and width.
        crop: How raw crops an image to that size, a key of ``CROPS``, as for validation.
        format: keep, jpeg, png, webp, or raw for cropped pixels as arrays.
        quality: Of JPEG and WebP for re-encoded images, in 1..100.
        shard_size: Largest size of a shard in MB; a larger sample gets its own shard.
        val: Share held out for validation, in [0, 0.5], or ``auto`` for that of ``hold_out``.

    Raises:
        ConfigError: If a value is invalid.
    """

    image_size: ImageSize | None
    crop: Annotated[str, one_of(*CROPS)]
    format: Annotated[str, one_of(*FORMATS)]
    quality: Annotated[int, within(1, 100)]
    shard_size: Annotated[float, above(0), FINITE]
    val: Annotated[float, within(0, 0.5)] | Annotated[str, AUTO]

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_fields(self, "")
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


@final
@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample as it is written.

    Attributes:
        fields: Name and bytes of each field; the image is the first.
        width: Of the image upright, in px; of raw, as it is written.
        height: Of the image upright, in px; of raw, as it is written.
        mode: Pillow's mode of the source; for an array, its type and channels.
        digest: The first 32 digits of the SHA-256 of the source's bytes.
    """

    fields: tuple[_Member, ...]
    width: int
    height: int
    mode: str
    digest: str


def find_image(content: bytes, sample: Sample, *, offset: int) -> list[object]:
    """Describe the image of a sample for index.json and the list of members.

    Args:
        content: The sample as members of a tar.
        sample: The sample.
        offset: Where the members begin in the shard.

    Returns:
        A ``Note`` without the number.
    """
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        first = tar.next()
    assert first is not None, "it has the image"
    return [
        *(sample.digest, offset + first.offset_data, first.size),
        *(sample.width, sample.height, sample.mode),
    ]


def digest_of(encoded: bytes) -> str:
    """Hash an image: 32 digits of its SHA-256."""
    return sha256(encoded).hexdigest()[:32]


def read_sample(
    images: SampleIndex, fields: Fields, settings: PackSettings, image_id: int
) -> Sample | Fault:
    """Read and check a sample, and encode its image again if that is asked."""
    try:
        source = images.read(image_id)
        (width, height), mode, member = _examine(source, settings)
        others = [(fields.index.key(i), fields.index.read(i)) for i in fields.of(image_id)]
        # A second image of a sample may have the name that the first one has now.
        others = [(f"2.{name}" if name == member[0] else name, some) for name, some in others]
    except BadSampleError as error:
        return images.fault(image_id, str(error))
    return Sample(
        fields=(member, *others), width=width, height=height, mode=mode, digest=digest_of(source)
    )


def _examine(source: bytes, settings: PackSettings) -> tuple[tuple[int, int], str, _Member]:
    """Decode an image, and return its size, its mode and what to write of it."""
    with one_line(source):
        opened = open_image(source)
        if opened is not None:
            mode = opened.mode
            if settings.format == "raw":
                is_gray = mode in _GRAY or mode.startswith(("I", "F"))
                return _crop(source, settings, channels=1 if is_gray else 3, mode=mode)
            image = ImageOps.exif_transpose(opened)
            return image.size, mode, _encode(source, opened.format or "", image, settings)
        is_npy = source.startswith(NPY)
        array = read_npy(source) if is_npy else tifffile.imread(io.BytesIO(source))
        if array.ndim not in (2, 3):
            raise ValueError(f"an array of {array.ndim} axes is no image")
        height, width = array.shape[:2]
        mode = f"{array.dtype} {'x'.join(map(str, array.shape[2:])) or 1}"
        if settings.format == "raw":
            is_gray = array.shape[2:] in ((), (1,))
            return _crop(source, settings, channels=1 if is_gray else 3, mode=mode)
        return (width, height), mode, ("npy" if is_npy else "tif", source)


def _crop(
    source: bytes, settings: PackSettings, *, channels: int, mode: str
) -> tuple[tuple[int, int], str, _Member]:
    """Crop an image, and return its size, its mode and its pixels as an array [h, w, c]."""
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
    return (pixels.shape[1], pixels.shape[0]), mode, ("npy", file.getvalue())


def _encode(
    source: bytes, format_found: str, image: Image.Image, settings: PackSettings
) -> _Member:
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
