"""``preprocess.py`` of an exported folder: ``Tokenizer.preprocess`` without vqtrain and torch."""

from pathlib import Path

from vqtrain.data.media import IMAGE
from vqtrain.shapes import by
from vqtrain.tokenizer.model import Tokenizer

FILE = "preprocess.py"

# Arrays of other channels are no pictures, so only these need Pillow.
PICTURES = """    if isinstance(picture, Image.Image):
        picture.load()
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith(("I", "F")):
            values, clear = np.asarray(picture), picture.info.get("transparency")
            if picture.mode == "I" and RANGE is None and 0 <= values.min() <= values.max() < 2**16:
                values = values.astype(np.uint16)
            is_clear = values.dtype == np.uint16 and isinstance(clear, int)
            picture = np.where(values == clear, np.uint16(65_535), values) if is_clear else values
        else:
            picture = picture.convert({"La": "LA", "LAB": "RGB"}.get(picture.mode, picture.mode))
            if picture.has_transparency_data:
                below = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(below, picture.convert("RGBA"))
            picture = picture.convert("RGB" if CHANNELS == 3 else "L")
"""

SOURCE = '''"""From a picture to what the encoder takes, as vqtrain does it."""

import numpy as np
@IMPORT@
CHANNELS = @CHANNELS@
TOKEN = @TOKEN@  # height and width in px
RANGE = @RANGE@  # values of black and white; None for uint8


def preprocess(picture):
    """Turn @WHAT@ into float32 images [1, CHANNELS, height, width] in [-1, 1].

    Arrays are [height, width] or [height, width, CHANNELS]. What is given is cropped at the center
    to multiples of @UNIT@ px, never resized; transparent parts become white.
    """
@PICTURES@    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim == 3 and pixels.shape[2] == 1 and CHANNELS == 3:
        pixels = pixels.repeat(3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != CHANNELS or pixels.dtype.kind not in "iuf":
        raise ValueError(f"{pixels.dtype} {pixels.shape} is no picture of {CHANNELS} channels")
    if RANGE is None and (pixels.dtype.kind, pixels.dtype.itemsize) == ("u", 2):
        pixels = (pixels.astype(np.uint32) + 128) // 257
    elif RANGE is None and pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8 or uint16, got {pixels.dtype}")
    if not np.isfinite(pixels).all():
        raise ValueError("some pixels are NaN or infinite")
    black, white = RANGE or (0.0, 255.0)
    pixels = np.clip(pixels.astype(np.float32), black, white)
    height, width = (side // unit * unit for side, unit in zip(pixels.shape, TOKEN))
    if not height or not width:
        raise ValueError(f"{pixels.shape[0]} x {pixels.shape[1]} px hold no token of @UNIT@ px")
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    pixels = pixels[top : top + height, left : left + width]
    images = (pixels - black) / ((white - black) / 2) - 1
    return np.ascontiguousarray(images.transpose(2, 0, 1)[None], dtype=np.float32)
'''


def write_preprocess(tokenizer: Tokenizer, out: Path) -> None:
    """Write ``preprocess.py`` into a folder, if the tokenizer is of images.

    Clips and sounds come from arrays in one step, and their sizes may follow other rules.
    """
    if len(tokenizer.unit) != IMAGE.axes:
        return
    of_pictures = tokenizer.channels in (1, 3)
    text = SOURCE
    for name, value in {
        "IMPORT": "from PIL import Image, ImageOps\n" if of_pictures else "",
        "CHANNELS": tokenizer.channels,
        "TOKEN": tokenizer.unit,
        "RANGE": tokenizer.pixel_range,
        "WHAT": "a PIL image or an array" if of_pictures else "an array",
        "UNIT": by(tokenizer.unit),
        "PICTURES": PICTURES if of_pictures else "",
    }.items():
        text = text.replace(f"@{name}@", str(value))
    (out / FILE).write_text(text, encoding="utf-8")
