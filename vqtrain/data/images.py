"""From encoded bytes to pixels: decoding, then cropping and mirroring."""

import io
import logging
import math
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import tifffile
import torch
from einops import rearrange
from jaxtyping import Shaped, UInt8
from PIL import ExifTags, Image, ImageColor, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

from vqtrain.data.crops import CROPS, Geometry, cut
from vqtrain.errors import BadSampleError
from vqtrain.ops.pixels import ValueRange

# What Pillow may take a file for. Others are left out: EPS, for one, runs Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")

_JPEG, _JPEG_MARKER, _JPEG_EXIF = b"\xff\xd8\xff", 0xFF, 0xE1
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Where every PNG says how many bits it has per channel.
_PNG_DEPTH = 24
# What torchvision puts in front of a message.
_PLACE_IN_TORCHVISION = re.compile(r"^decode_\w+, \S+, ")
# Weights of red, green and blue in gray: ITU-R 601, as Pillow and JPEG have them.
_LUMA = (0.299, 0.587, 0.114)

# It logs what it then raises.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@final
@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How encoded images become arrays.

    Attributes:
        image_size: Side of the square, in px.
        channels: 1 for gray, 3 for color; any other number is that of the files.
        crop: A key of ``CROPS``.
        flip: Whether to mirror half of the images left to right; only with a generator.
        range: Values of black and white in the files' own units, or None for uint8 of 0..255.
        background: Color under transparent pixels, as ``PIL.ImageColor`` knows it.
    """

    image_size: int
    channels: int
    crop: str
    flip: bool
    range: ValueRange | None
    background: str


def prepare(
    encoded: bytes, preparation: Preparation, generator: np.random.Generator | None
) -> Shaped[Tensor, "c h w"]:
    """Decode and crop one image.

    Args:
        encoded: A file's content.
        preparation: What to make of it.
        generator: Random numbers of this image, or None for the crop of validation.

    Returns:
        uint8 pixels, or with a range float32 values in it; in memory the channels of a pixel lie
        together.

    Raises:
        BadSampleError: If the bytes are no picture that can be used.
    """
    with _one_sentence(encoded):
        return _prepare(encoded, preparation, generator)


def whole(encoded: bytes, preparation: Preparation) -> Shaped[Tensor, "c h w"]:
    """Decode one image and keep all of it, whatever crop and size say; else as ``prepare``."""
    with _one_sentence(encoded):
        return rearrange(_decode(encoded, _open(encoded), preparation), "h w c -> c h w")


@contextmanager
def _one_sentence(encoded: bytes) -> Iterator[None]:
    """Turn whatever decoders raise into a BadSampleError."""
    try:
        # Odd metadata and large pictures: nothing that a user could mend in the middle of a run.
        with warnings.catch_warnings(action="ignore"):
            yield
    except BadSampleError:
        raise
    except UnidentifiedImageError:
        reason = f"no {', '.join(FORMATS[:-1])}, {FORMATS[-1]} or npy"
        raise BadSampleError(reason if encoded else "the file is empty") from None
    except Exception as error:  # decoders raise all kinds of errors on damaged bytes
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = _PLACE_IN_TORCHVISION.sub("", lines[0])
        raise BadSampleError(f"cannot be decoded: {reason}") from error


def from_picture(
    picture: Image.Image, *, channels: int, value_range: ValueRange | None, background: str
) -> Shaped[Tensor, "h w c"]:
    """Turn a picture upright, over the background where it is transparent; of frames, the first.

    Args:
        picture: As Pillow opens it, in any mode; it is left as it is.
        channels: As in ``Preparation``.
        value_range: Likewise.
        background: Likewise.

    Raises:
        BadSampleError: If it has other channels, or without a range no fixed one.
        Exception: Of any kind, if Pillow cannot decode the bytes.
    """
    picture.load()  # which turns a TIFF, but nothing else
    orientation = _orientation(picture)
    if picture.mode.startswith(("I", "F")):
        array = np.asarray(picture)
        if picture.mode == "I" and value_range is None and 0 <= array.min() <= array.max() < 2**16:
            array = array.astype(np.uint16)  # how Pillow holds 16-bit PPM
    else:
        array = _eight_bit(picture, channels, background)
    return _upright(from_array(array, channels=channels, value_range=value_range), orientation)


def from_array(
    array: Shaped[np.ndarray, "..."], *, channels: int, value_range: ValueRange | None
) -> Shaped[Tensor, "h w c"]:
    """Take raw values as pixels.

    Args:
        array: Of any integer or float type: [h, w], [h, w, c], or [c, h, w] where only that fits.
        channels: As in ``Preparation``.
        value_range: Likewise; values beyond it become its ends.

    Returns:
        uint8, or with a range float32.

    Raises:
        BadSampleError: If the array does not fit, or holds what is no number.
    """
    pixels = torch.from_numpy(_scaled(_channels_last(array, channels), value_range))
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(-1, -1, 3)
    gray = (pixels.float() @ torch.tensor(_LUMA))[..., None]
    return gray.round().to(torch.uint8) if value_range is None else gray


def _prepare(
    encoded: bytes, preparation: Preparation, generator: np.random.Generator | None
) -> Shaped[Tensor, "c h w"]:
    rule, side = CROPS[preparation.crop], preparation.image_size
    channels, value_range = preparation.channels, preparation.range
    header = _jpeg_header(encoded) if channels in (1, 3) else None
    if header is not None:
        size, orientation = header
        geometry = rule(*(size if orientation < 5 else size[::-1]), side, generator)
        factor = _draft_factor(geometry) if generator is not None else 1
        pixels = _upright(_decode_jpeg(encoded, size, channels, factor), orientation)
        if value_range is not None:
            pixels = pixels.float().clamp(*value_range)
        if factor > 1:
            geometry = geometry.reduced(factor, width=pixels.shape[1], height=pixels.shape[0])
    else:
        pixels = _decode(encoded, _open(encoded), preparation)
        geometry = rule(pixels.shape[1], pixels.shape[0], side, generator)
    square = cut(pixels, geometry, side)
    if value_range is not None:
        square = square.clamp(*value_range)  # bicubic overshoots at edges
    if preparation.flip and generator is not None and generator.random() < 0.5:
        square = square.flip(-1)
    return square


def _open(encoded: bytes) -> Image.Image | None:
    """Read a picture's header, or return None for what Pillow does not know and others do."""
    if encoded.startswith(_NPY):
        return None
    try:
        return Image.open(io.BytesIO(encoded), formats=FORMATS)
    except UnidentifiedImageError:
        if encoded.startswith(_TIFF):
            return None
        raise


def _jpeg_header(encoded: bytes) -> tuple[tuple[int, int], int] | None:
    """Find width and height of a gray or RGB JPEG, as stored, and how EXIF turns it.

    By Pillow, the header alone would cost a twentieth of the whole. None is for what Pillow is to
    look at: other files, CMYK, and huge sizes.
    """
    place, has_exif = 2 if encoded.startswith(_JPEG) else len(encoded), False
    while place + 10 <= len(encoded) and encoded[place] == _JPEG_MARKER:
        marker, length = encoded[place + 1], int.from_bytes(encoded[place + 2 : place + 4])
        if marker in _JPEG_FRAMES:
            height, width, channels = struct.unpack_from(">HHB", encoded, place + 5)
            limit = Image.MAX_IMAGE_PIXELS
            is_huge = limit is not None and width * height > limit
            if is_huge or channels not in (1, 3) or not width * height:
                return None
            orientation = 1
            if has_exif:
                orientation = _orientation(Image.open(io.BytesIO(encoded), formats=FORMATS))
            return (width, height), orientation
        has_exif |= marker == _JPEG_EXIF
        place += 2 + length
    return None


def _draft_factor(geometry: Geometry) -> int:
    return next((factor for factor in (8, 4, 2) if geometry.reduction() >= factor), 1)


def _decode_jpeg(
    encoded: bytes, size: tuple[int, int], channels: int, factor: int
) -> UInt8[Tensor, "h w c"]:
    if factor > 1:  # libjpeg leaves out the fine frequencies, and most of the work
        picture = Image.open(io.BytesIO(encoded), formats=FORMATS)
        picture.draft("L" if channels == 1 else "RGB", (size[0] // factor, size[1] // factor))
        array = np.array(picture.convert("L" if channels == 1 else "RGB"))
        return torch.from_numpy(array.reshape(picture.height, picture.width, channels))
    mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    # Its warning, that nobody may write to these bytes, is ignored above: nobody does.
    return decode_jpeg(torch.frombuffer(encoded, dtype=torch.uint8), mode=mode).permute(1, 2, 0)


def _decode(
    encoded: bytes, picture: Image.Image | None, preparation: Preparation
) -> Shaped[Tensor, "h w c"]:
    channels, value_range = preparation.channels, preparation.range
    if encoded.startswith(_NPY):
        return from_array(_read_npy(encoded), channels=channels, value_range=value_range)
    if picture is None or _is_cut_by_pillow(encoded, picture, preparation):
        orientation = 1 if picture is None else _orientation(picture)
        if picture is not None and picture.format == "PNG":
            array = _read_deep_png(encoded, channels, preparation.background)
        else:
            array = _read_tiff(encoded, channels)
        return _upright(from_array(array, channels=channels, value_range=value_range), orientation)
    return from_picture(
        picture, channels=channels, value_range=value_range, background=preparation.background
    )


def _is_cut_by_pillow(encoded: bytes, picture: Image.Image, preparation: Preparation) -> bool:
    """Tell whether Pillow would drop bits or channels that are wanted."""
    if picture.format != "TIFF":
        is_deep = picture.format == "PNG" and encoded[_PNG_DEPTH] == 16
        return is_deep and preparation.range is not None
    if preparation.channels not in (1, 3) and picture.mode not in ("LA", "RGBA"):
        return True
    bits = picture.getexif().get(ExifTags.Base.BitsPerSample, 1)
    is_deep = max(bits if isinstance(bits, tuple) else (bits,)) > 8
    is_known = picture.mode.startswith(("I;16", "F"))
    return is_deep and not is_known and preparation.range is not None


def _read_npy(encoded: bytes) -> Shaped[np.ndarray, "..."]:
    # Not np.load, which makes room for whatever shape the header claims before it reads.
    file = io.BytesIO(encoded)
    major, _ = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0
    if major > 1:
        read_header = np.lib.format.read_array_header_2_0
    shape, is_column_major, dtype = read_header(file)
    values = np.frombuffer(encoded, dtype, math.prod(shape), offset=file.tell())
    return values.reshape(shape, order="F" if is_column_major else "C")


def _read_deep_png(encoded: bytes, channels: int, background: str) -> Shaped[np.ndarray, "h w c"]:
    data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    array = rearrange(decode_png(data, mode=ImageReadMode.UNCHANGED), "c h w -> h w c").numpy()
    if channels not in (1, 3) or array.shape[2] not in (2, 4):
        return array
    below = np.array(ImageColor.getrgb(background)[:3]) * 257.0  # 255 * 257 = 65,535
    if array.shape[2] == 2:
        below = below @ np.array(_LUMA)
    opacity = array[..., -1:] / 65_535
    return array[..., :-1] * opacity + below * (1 - opacity)


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
        raise BadSampleError(f"an array {shape} is no picture: [h, w] or [h, w, c] is")
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
        raise BadSampleError(f"an array of {array.dtype} is no picture")
    if value_range is not None:
        if not np.isfinite(array).all():
            raise BadSampleError("some values are NaN or infinite")
        # Before resampling, which would spread an outlier.
        return np.clip(array.astype(np.float32), *value_range)
    if array.dtype == np.uint8:
        return array if array.flags.writeable else array.copy()  # as torch wants it
    if (array.dtype.kind, array.dtype.itemsize) == ("u", 2):
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65,535 / 257 = 255
    raise BadSampleError(
        f"pixels of {array.dtype} have no fixed range: set data.range to the values of black and "
        "white"
    )


def _eight_bit(picture: Image.Image, channels: int, background: str) -> UInt8[np.ndarray, "h w c"]:
    has_alpha = picture.has_transparency_data
    if channels in (1, 3):
        if has_alpha:
            below = Image.new("RGBA", picture.size, background)
            picture = Image.alpha_composite(below, picture.convert("RGBA"))
        picture = picture.convert("RGB" if channels == 3 else "L")
    elif picture.mode not in ("LA", "RGBA"):
        picture = picture.convert("RGBA" if has_alpha else "RGB")
    array = np.array(picture)  # a copy: torch wants memory that can be written
    array = array.reshape(picture.height, picture.width, -1)
    if array.shape[2] != channels:
        raise BadSampleError(
            f"a picture of mode {picture.mode} does not fit data.channels={channels}"
        )
    return array


def _orientation(picture: Image.Image) -> int:
    """Return 1 to 8 as EXIF numbers them; 1, upright, for whatever cannot be read."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata raise all kinds of errors, and the pixels may be sound
        return 1
    return orientation if orientation in range(1, 9) else 1


def _upright(pixels: Shaped[Tensor, "h w c"], orientation: int) -> Shaped[Tensor, "h2 w2 c"]:
    if orientation >= 5:
        pixels = rearrange(pixels, "h w c -> w h c")
    is_upside_down, is_mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    axes = [axis for axis, is_turned in enumerate((is_upside_down, is_mirrored)) if is_turned]
    return pixels.flip(axes) if axes else pixels
