"""One sample of a pack: an image that was checked, encoded again if asked, and its fields."""

import io
import math
import tarfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import final

import numpy as np
import tifffile
from jaxtyping import Shaped
from PIL import Image, ImageOps, UnidentifiedImageError

from vqtrain.build import unknown
from vqtrain.data.faults import Fault
from vqtrain.data.sources.index import ImageIndex
from vqtrain.errors import BadSampleError, ConfigError

# What is written, by the word that a user writes.
FORMATS = ("keep", "jpeg", "png", "webp")
# What Pillow may take a file for: as in vqtrain.data.decoding.images, which imports torch.
READ = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")

# A field's name by the format that is found, not by the suffix of the file.
_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif", "JPEG2000": "jp2"}
_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Name of a field and its bytes.
_Member = tuple[str, bytes]
# What is kept of a packed image: its number, digest, offset and size in the shard, width, height
# and mode.
Note = tuple[int, str, int, int, int, int, str]


@final
@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """What decides the bytes of a pack, besides its images.

    Attributes:
        image_size: Largest short side in px; longer ones are reduced to it. None keeps all.
        format: keep, jpeg, png or webp.
        quality: Of JPEG and WebP, for images that are encoded again, in 1..100.
        shard_size: Largest size of a shard in MB; one larger sample is a shard of its own.
        val: Share held out for validation, in [0, 0.5], or ``auto``: that of ``hold_out``.

    Raises:
        ConfigError: If a value is impossible.
    """

    image_size: int | None
    format: str
    quality: int
    shard_size: float
    val: float | str

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.image_size is not None and self.image_size < 1:
            raise ConfigError(f"image_size must be at least 1 px, got {self.image_size}")
        if self.format not in FORMATS:
            raise ConfigError(f"format: {unknown('format', self.format, FORMATS)}")
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"quality must be from 1 to 100, got {self.quality}")
        if not 0 < self.shard_size < math.inf:
            raise ConfigError(f"shard_size must be some MB, such as 256, got {self.shard_size}")
        is_share = isinstance(self.val, float) and 0 <= self.val <= 0.5
        if self.val != "auto" and not is_share:
            raise ConfigError(f"val must be auto or a share from 0 to 0.5, got {self.val!r}")


@final
@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is written of one sample.

    Attributes:
        fields: Name and bytes of each field; the image is the first.
        width: Of the image upright, in px.
        height: Of the image upright, in px.
        mode: Pillow's word for its kind of pixels, before it was encoded again; of an array, its
            type and channels.
        digest: SHA-256 of the source's bytes, 32 digits of it.
    """

    fields: tuple[_Member, ...]
    width: int
    height: int
    mode: str
    digest: str


@final
@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some samples as a worker gets them.

    Attributes:
        images: Where the images lie.
        fields: Where their fields lie; the keys are the names of the fields.
        field_ids: For each image, its positions in ``fields``.
        settings: What the user set.
    """

    images: ImageIndex
    fields: ImageIndex
    field_ids: Sequence[Sequence[int]]
    settings: PackSettings


def pack_chunk(chunk: Chunk) -> list[Sample | Fault]:
    """Read and check some samples, in their order."""
    return [_pack_sample(chunk, image_id) for image_id in range(len(chunk.images))]


def find_image(content: bytes, sample: Sample, *, offset: int) -> list[object]:
    """Describe the image of a sample for index.json and the list of members.

    Args:
        content: The sample as members of a tar.
        sample: What they were written from.
        offset: Where they begin in the shard.

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


def digests(images: ImageIndex) -> list[str | None]:
    """Hash some images; None for what cannot be read."""
    found: list[str | None] = []
    for image_id in range(len(images)):
        try:
            found.append(_digest(images.read(image_id)))
        except BadSampleError:
            found.append(None)
    return found


def _digest(encoded: bytes) -> str:
    return sha256(encoded).hexdigest()[:32]


def _pack_sample(chunk: Chunk, image_id: int) -> Sample | Fault:
    images, fields = chunk.images, chunk.fields
    try:
        source = images.read(image_id)
        (width, height), mode, member = _examine(source, chunk.settings)
        others = [(fields.key(i), fields.read(i)) for i in chunk.field_ids[image_id]]
        # A second image of a sample may have the name that the first one has now.
        others = [(f"2.{name}" if name == member[0] else name, some) for name, some in others]
    except BadSampleError as error:
        return images.fault(image_id, str(error))
    return Sample(
        fields=(member, *others), width=width, height=height, mode=mode, digest=_digest(source)
    )


def _examine(source: bytes, settings: PackSettings) -> tuple[tuple[int, int], str, _Member]:
    """Decode an image, and return its size, its mode and what to write of it."""
    if not source:
        raise BadSampleError("the file is empty")
    try:
        # Odd metadata, and large images: Pillow refuses those of twice the size it warns of.
        with warnings.catch_warnings(action="ignore"):
            return _examine_array(source) if source.startswith(_NPY) else _open(source, settings)
    except UnidentifiedImageError:
        # Pillow's own text holds an address in memory, which is another one in each run.
        raise BadSampleError(f"no {', '.join(READ)} or npy") from None
    except Exception as error:  # decoders raise all kinds of errors on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadSampleError(f"cannot decode it: {reason}") from error


def _open(source: bytes, settings: PackSettings) -> tuple[tuple[int, int], str, _Member]:
    try:
        opened = Image.open(io.BytesIO(source), formats=READ)
    except UnidentifiedImageError:
        if not source.startswith(_TIFF):
            raise
        # Of many channels or wide numbers, which Pillow does not read.
        return _describe(tifffile.imread(io.BytesIO(source)), "tif", source)
    image = ImageOps.exif_transpose(opened)
    return image.size, opened.mode, _encode(source, opened.format or "", image, settings)


def _examine_array(source: bytes) -> tuple[tuple[int, int], str, _Member]:
    return _describe(np.load(io.BytesIO(source), allow_pickle=False), "npy", source)


def _describe(
    array: Shaped[np.ndarray, "..."], suffix: str, source: bytes
) -> tuple[tuple[int, int], str, _Member]:
    if array.ndim not in (2, 3):
        raise ValueError(f"an array of {array.ndim} axes is no image")
    height, width = array.shape[:2]
    return (
        (width, height),
        f"{array.dtype} {'x'.join(map(str, array.shape[2:])) or 1}",
        (suffix, source),
    )


def _encode(
    source: bytes, format_found: str, image: Image.Image, settings: PackSettings
) -> _Member:
    """Return the name and the bytes of the image's field: the source's if nothing is asked."""
    suffix = _SUFFIXES.get(format_found, format_found.lower())
    wanted = {"keep": suffix, "jpeg": "jpg"}.get(settings.format, settings.format)
    size, short = settings.image_size, min(image.size)
    is_too_large = size is not None and short > size
    if image.mode.startswith(("I", "F")) or (wanted == suffix and not is_too_large):
        return suffix, source
    if wanted not in ("jpg", "webp"):
        wanted = "png"
    # One for other kinds of color does not describe the new pixels.
    has_profile = image.mode not in ("CMYK", "LAB", "YCbCr")
    profile = image.info.get("icc_profile") if has_profile else None
    image = _to_8_bit(image, keeps_alpha=wanted != "jpg")
    if size is not None and is_too_large:
        width, height = (side * size // short for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    options = {
        "png": {},
        # Without halving the color, which a tokenizer would learn.
        "jpg": {"quality": settings.quality, "subsampling": 0},
        "webp": {"quality": settings.quality},
    }[wanted]
    file = io.BytesIO()
    kind = "JPEG" if wanted == "jpg" else wanted.upper()
    image.save(file, kind, icc_profile=profile, **options)
    return wanted, file.getvalue()


def _to_8_bit(image: Image.Image, *, keeps_alpha: bool) -> Image.Image:
    """Convert to gray or RGB; transparent parts stay so, or become white."""
    is_gray = image.mode in ("1", "L", "LA", "La")
    if not image.has_transparency_data:
        return image.convert("L" if is_gray else "RGB")
    if keeps_alpha:
        return image.convert("LA" if is_gray else "RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("L" if is_gray else "RGB")
