"""From encoded bytes to pixels: decoding, then cropping and flipping."""

import io

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image, ImageOps

from vqtrain.data.crops import CROPS
from vqtrain.data.index import ImageIndex
from vqtrain.errors import DataError


def load_pixels(
    index: ImageIndex,
    image_id: int,
    *,
    image_size: int,
    channels: int,
    crop: str,
    flip: bool,
    generator: np.random.Generator | None,
) -> UInt8[np.ndarray, "c h w"]:
    """Read, decode and crop one image.

    Args:
        index: Where the image lies.
        image_id: Its position in the index.
        image_size: Side of the square, in px.
        channels: 3 for color, 1 for gray.
        crop: A key of ``CROPS``.
        flip: Whether to mirror half of the images left to right; only with a generator.
        generator: Random numbers of this image, or None for the crop of validation.

    Returns:
        Pixels in 0..255, [channels, image_size, image_size].

    Raises:
        DataError: If the image cannot be read or decoded.
    """
    encoded = index.read(image_id)
    try:
        picture = upright(Image.open(io.BytesIO(encoded)), channels=channels)
        picture = CROPS[crop](picture, image_size, generator)
    except Exception as error:  # decoders raise all kinds of errors on damaged bytes
        raise DataError(
            f"cannot decode image {index.key(image_id)!r} in {index.path(image_id)}: {error}"
        ) from error
    if flip and generator is not None and generator.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return to_array(picture)


def to_array(picture: Image.Image) -> UInt8[np.ndarray, "c h w"]:
    """Return the pixels of a picture of mode RGB or L, channels first."""
    pixels = np.array(picture)  # a copy: torch wants memory that can be written
    return rearrange(pixels.reshape(picture.height, picture.width, -1), "h w c -> c h w")


def upright(picture: Image.Image, *, channels: int) -> Image.Image:
    """Decode a picture upright, on white where it is transparent; of several frames, the first.

    Args:
        picture: As Pillow opens it, in any mode; it is left as it is.
        channels: 3 for mode RGB, 1 for mode L.

    Raises:
        Exception: Of any kind, if Pillow cannot decode the bytes.
        ValueError: If the pixels have no fixed range.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        picture = _to_8_bit(picture)
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB" if channels == 3 else "L")


def _to_8_bit(picture: Image.Image) -> Image.Image:
    """Scale 16-bit gray, where Pillow's own conversion would clip at 255."""
    gray = np.asarray(picture)
    if picture.mode == "F" or gray.min() < 0 or gray.max() > 65_535:
        raise ValueError("pixels of 32 bits have no fixed range: save it with 8 or 16 bits")
    # 65535 / 257 = 255
    return Image.fromarray(((gray.astype(np.uint32) + 128) // 257).astype(np.uint8))
