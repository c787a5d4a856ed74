"""From encoded bytes to pixels: decoding, then cropping and mirroring."""

import io
import logging
import math
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import tifffile
import torch
from einops import rearrange
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from vqtrain.data.decoding.base import Transform
from vqtrain.data.decoding.crops import CROPS, Geometry, crop
from vqtrain.data.decoding.png import LUMA, fill_transparent, load_png, read_deep_png
from vqtrain.data.media import IMAGE
from vqtrain.errors import BadSampleError
from vqtrain.ops.pixels import ValueRange
from vqtrain.shapes import ImageSize, sides

# Modes that Pillow converts to few others, and the one on the way to all.
_DETOURS = {"La": "LA", "LAB": "RGB"}
# Formats that Pillow may open. Others are excluded: EPS, for example, runs Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")

_JPEG, _JPEG_MARKER, _JPEG_EXIF = b"\xff\xd8\xff", 0xFF, 0xE1
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Where every PNG says how many bits it has per channel.
_PNG_DEPTH = 24
# The prefix of torchvision's messages.
_TORCHVISION_PREFIX = re.compile(r"^decode_\w+, \S+, ")
# It logs what it then raises.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@final
@dataclass(frozen=True, kw_only=True)
class ImageTransform(Transform):
    """How encoded images become arrays; channels are last in memory.

    Attributes:
        image_size: Side of the square, or height and width, in px.
        channels: 1 for gray, 3 for color; any other number is that of the files.
        crop: A key of ``CROPS``.
        flip: Whether to mirror half of the images left to right; only with a generator.
        range: Values of black and white in the files' own units, or None for uint8 of 0..255.
        background: Color under transparent pixels, as ``PIL.ImageColor`` knows it.
    """

    image_size: ImageSize
    crop: str
    flip: bool
    background: str

    media = IMAGE

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width, in px."""
        return sides(self.image_size)

    @property
    def summary(self) -> Mapping[str, object]:
        """The size of the images, and how they are cropped."""
        return {"image_size": self.image_size, "crop": self.crop}

    def sized(self, size: tuple[int, ...]) -> "ImageTransform":
        """Return the same for images of another height and width."""
        return replace(self, image_size=list(size))

    def decode(
        self, encoded: bytes, generator: np.random.Generator | None
    ) -> Shaped[Tensor, "c h w"]:
        """Decode and crop one image; see ``ImageTransform``."""
        with one_line(encoded):
            return _decode_part(encoded, self, generator)

    def decode_whole(self, encoded: bytes) -> Shaped[Tensor, "c h w"]:
        """Decode one image as ``decode`` does, but keep all of it."""
        with one_line(encoded):
            return rearrange(_decode(encoded, open_image(encoded), self), "h w c -> c h w")


@contextmanager
def one_line(encoded: bytes = b"") -> Iterator[None]:
    """Turn errors of decoders into a BadSampleError.

    Args:
        encoded: What is decoded, unless it is open already.
    """
    try:
        # Odd metadata and large images: nothing that a user could repair during a run.
        with warnings.catch_warnings(action="ignore"):
            yield
    except BadSampleError:
        raise
    except UnidentifiedImageError:
        reason = f"no {', '.join(FORMATS[:-1])}, {FORMATS[-1]} or npy"
        raise BadSampleError(reason if encoded else "the file is empty") from None
    except Exception as error:  # decoders raise all kinds of errors on damaged bytes
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = _TORCHVISION_PREFIX.sub("", lines[0])
        raise BadSampleError(f"cannot be decoded: {reason}") from error


def from_pillow(
    image: Image.Image, *, channels: int, value_range: ValueRange | None, background: str
) -> Shaped[Tensor, "h w c"]:
    """Take the first frame of an image, upright, over the background where it is transparent.

    Args:
        image: As Pillow opens it, in any mode; it is not changed.
        channels: As in ``ImageTransform``.
        value_range: As ``range`` in ``ImageTransform``.
        background: As in ``ImageTransform``.

    Raises:
        BadSampleError: If it has other channels, or without a range no fixed one.
        Exception: Of any kind, if Pillow cannot decode the bytes.
    """
    image = load_png(image) if image.format == "PNG" else image
    image.load()  # turns a TIFF upright, but no other format
    orientation = orientation_of(image)
    if image.mode.startswith(("I", "F")):
        array = np.asarray(image)
        if image.mode == "I" and value_range is None and 0 <= array.min() <= array.max() < 2**16:
            array = array.astype(np.uint16)  # how Pillow holds 16-bit PPM
        array = fill_transparent(array, image, channels, background)
    else:
        array = _eight_bit(image, channels, background)
    return _upright(from_array(array, channels=channels, value_range=value_range), orientation)


def from_array(
    array: Shaped[np.ndarray, "..."], *, channels: int, value_range: ValueRange | None
) -> Shaped[Tensor, "h w c"]:
    """Take raw values as pixels.

    Args:
        array: Of any integer or float type: [h, w], [h, w, c], or [c, h, w] where only that fits.
        channels: As in ``ImageTransform``.
        value_range: As ``range`` there; values beyond it become its ends.

    Returns:
        uint8, or with a range float32.

    Raises:
        BadSampleError: If the array does not fit, or holds NaN or infinity.
    """
    pixels = torch.from_numpy(_scaled(_channels_last(array, channels), value_range))
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(-1, -1, 3)
    gray = (pixels.float() @ torch.tensor(LUMA))[..., None]
    return gray.round().to(torch.uint8) if value_range is None else gray


def _decode_part(
    encoded: bytes, transform: ImageTransform, generator: np.random.Generator | None
) -> Shaped[Tensor, "c h w"]:
    rule, (rows, columns) = CROPS[transform.crop], sides(transform.image_size)
    target = (columns, rows)
    channels, value_range = transform.channels, transform.range
    header = _jpeg_header(encoded) if channels in (1, 3) else None
    if header is not None:
        size, orientation = header
        geometry = rule(*(size if orientation < 5 else size[::-1]), target, generator)
        factor = _draft_factor(geometry) if generator is not None else 1
        pixels = _upright(_decode_jpeg(encoded, size, channels, factor), orientation)
        if value_range is not None:
            pixels = pixels.float().clamp(*value_range)
        if factor > 1:
            geometry = geometry.reduced(factor, width=pixels.shape[1], height=pixels.shape[0])
    else:
        pixels = _decode(encoded, open_image(encoded), transform)
        geometry = rule(pixels.shape[1], pixels.shape[0], target, generator)
    part = crop(pixels, geometry, target)
    if value_range is not None:
        part = part.clamp(*value_range)  # bicubic overshoots at edges
    if transform.flip and generator is not None and generator.random() < 0.5:
        part = part.flip(-1)
    return part


def open_image(encoded: bytes) -> Image.Image | None:
    """Read an image's header, or return None for formats that other libraries read."""
    if encoded.startswith(NPY):
        return None
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError:
        if encoded.startswith(_TIFF):
            return None
        raise


def _jpeg_header(encoded: bytes) -> tuple[tuple[int, int], int] | None:
    """Find width and height of a gray or RGB JPEG, as stored, and how EXIF turns it.

    With Pillow the header alone would cost a twentieth of the whole. Returns None for what Pillow
    must read: other files, CMYK, and huge sizes.
    """
    start, has_exif = 2 if encoded.startswith(_JPEG) else len(encoded), False
    while start + 10 <= len(encoded) and encoded[start] == _JPEG_MARKER:
        marker, length = encoded[start + 1], int.from_bytes(encoded[start + 2 : start + 4])
        if marker in _JPEG_FRAMES:
            height, width, channels = struct.unpack_from(">HHB", encoded, start + 5)
            limit = Image.MAX_IMAGE_PIXELS
            is_huge = limit is not None and width * height > limit
            if is_huge or channels not in (1, 3) or not width * height:
                return None
            orientation = 1
            if has_exif:
                orientation = orientation_of(Image.open(io.BytesIO(encoded), formats=FORMATS))
            return (width, height), orientation
        has_exif |= marker == _JPEG_EXIF
        start += 2 + length
    return None


def _draft_factor(geometry: Geometry) -> int:
    return next((factor for factor in (8, 4, 2) if geometry.reduction() >= factor), 1)


def _decode_jpeg(
    encoded: bytes, size: tuple[int, int], channels: int, factor: int
) -> UInt8[Tensor, "h w c"]:
    if factor > 1:  # libjpeg leaves out the fine frequencies, and most of the work
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        image.draft("L" if channels == 1 else "RGB", (size[0] // factor, size[1] // factor))
        array = np.array(image.convert("L" if channels == 1 else "RGB"))
        return torch.from_numpy(array.reshape(image.height, image.width, channels))
    mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    # torch's warning that these bytes are not writable is ignored above: nothing writes to them.
    return decode_jpeg(torch.frombuffer(encoded, dtype=torch.uint8), mode=mode).permute(1, 2, 0)


def _decode(
    encoded: bytes, image: Image.Image | None, transform: ImageTransform
) -> Shaped[Tensor, "h w c"]:
    channels, value_range = transform.channels, transform.range
    if encoded.startswith(NPY):
        return from_array(read_npy(encoded), channels=channels, value_range=value_range)
    if image is None or _loses_in_pillow(encoded, image, transform):
        orientation = 1 if image is None else orientation_of(image)
        if image is not None and image.format == "PNG":
            array = read_deep_png(encoded, channels, transform.background)
            array = fill_transparent(array, image, channels, transform.background)
        else:
            array = _read_tiff(encoded, channels)
        return _upright(from_array(array, channels=channels, value_range=value_range), orientation)
    return from_pillow(
        image, channels=channels, value_range=value_range, background=transform.background
    )


def _loses_in_pillow(encoded: bytes, image: Image.Image, transform: ImageTransform) -> bool:
    """Tell whether Pillow would drop bits or channels that are wanted."""
    if image.format != "TIFF":
        is_deep = image.format == "PNG" and encoded[_PNG_DEPTH] == 16
        has_transparent_color = image.mode == "RGB" and "transparency" in image.info
        return is_deep and (transform.range is not None or has_transparent_color)
    if transform.channels not in (1, 3) and image.mode not in ("LA", "RGBA"):
        return True
    bits = image.getexif().get(ExifTags.Base.BitsPerSample, 1)
    is_deep = max(bits if isinstance(bits, tuple) else (bits,)) > 8
    is_known = image.mode.startswith(("I;16", "F"))
    return is_deep and not is_known and transform.range is not None


def read_npy(encoded: bytes) -> Shaped[np.ndarray, "..."]:
    """Read the content of a .npy file; an error of any kind says that it is damaged."""
    # Not np.load, which allocates the shape that the header claims before it reads.
    file = io.BytesIO(encoded)
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0
    if major > 1:
        read_header = np.lib.format.read_array_header_2_0
    shape, is_column_major, dtype = read_header(file)
    values = np.frombuffer(encoded, dtype, math.prod(shape), offset=file.tell())
    return values.reshape(shape, order="F" if is_column_major else "C")


def _read_tiff(encoded: bytes, channels: int) -> Shaped[np.ndarray, "..."]:
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        page = file.pages.first
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and page.size > 2 * limit * max(channels, 4):
            raise BadSampleError(f"{page.size} values could be a decompression bomb")
        return page.asarray()


def _channels_last(array: Shaped[np.ndarray, "..."], channels: int) -> Shaped[np.ndarray, "h w c"]:
    shape = list(array.shape)
    if array.ndim not in (2, 3) or not array.size:
        raise BadSampleError(f"an array {shape} is not an image: [h, w] or [h, w, c] is")
    fitting = (1, 3) if channels in (1, 3) else (channels,)
    if array.ndim == 2:
        array = array[..., None]
    elif array.shape[2] not in fitting and array.shape[0] in fitting:
        array = rearrange(array, "c h w -> h w c")
    if array.shape[2] not in fitting:
        raise BadSampleError(f"an array {shape} does not fit data.channels={channels}")
    return array


def _scaled(
    array: Shaped[np.ndarray, "h w c"], value_range: ValueRange | None
) -> Shaped[np.ndarray, "h w c"]:
    if array.dtype.kind not in "iuf":
        raise BadSampleError(f"an array of {array.dtype} is not an image")
    if value_range is not None:
        if not np.isfinite(array).all():
            raise BadSampleError("some values are NaN or infinite")
        # Before resampling, which would spread an outlier.
        return np.clip(array.astype(np.float32), *value_range)
    if array.dtype == np.uint8:
        return np.require(array, requirements=["C", "W"])  # torch takes no negative strides
    if (array.dtype.kind, array.dtype.itemsize) == ("u", 2):
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65,535 / 257 = 255
    raise BadSampleError(
        f"pixels of {array.dtype} have no fixed range: set data.range to the values of black and "
        "white"
    )


def _eight_bit(image: Image.Image, channels: int, background: str) -> UInt8[np.ndarray, "h w c"]:
    image = image.convert(_DETOURS.get(image.mode, image.mode))
    has_alpha = image.has_transparency_data
    if channels in (1, 3):
        if has_alpha:
            below = Image.new("RGBA", image.size, background)
            image = Image.alpha_composite(below, image.convert("RGBA"))
        image = image.convert("RGB" if channels == 3 else "L")
    elif image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA" if has_alpha else "RGB")
    array = np.array(image)  # a copy: torch wants memory that can be written
    array = array.reshape(image.height, image.width, -1)
    if array.shape[2] != channels:
        raise BadSampleError(f"an image of mode {image.mode} does not fit data.channels={channels}")
    return array


def orientation_of(image: Image.Image) -> int:
    """Return EXIF's orientation, 1 to 8; 1, upright, if it cannot be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata raise all kinds of errors, and the pixels may be sound
        return 1
    return orientation if orientation in range(1, 9) else 1


def _upright(pixels: Shaped[Tensor, "h w c"], orientation: int) -> Shaped[Tensor, "h2 w2 c"]:
    if orientation >= 5:
        pixels = rearrange(pixels, "h w c -> w h c")
    is_upside_down, is_mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    axes = [axis for axis, is_turned in enumerate((is_upside_down, is_mirrored)) if is_turned]
    return pixels.flip(axes) if axes else pixels
