"""What Pillow does not read of a PNG: 16 bits in color, and the one color that is transparent."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Shaped
from PIL import Image, ImageColor, PngImagePlugin
from torchvision.io import ImageReadMode, decode_png

# Weights of red, green and blue in gray: ITU-R 601, as Pillow and JPEG have them.
LUMA = (0.299, 0.587, 0.114)

# Pillow refuses a PNG for a color profile or a text above 1 MB; this is what it allows all of them.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

# What Pillow multiplies the grays of 2 or 4 bits by, but not the one that is transparent.
_FACTORS = {"L;2": 85, "L;4": 17}


def load_png(image: Image.Image) -> Image.Image:
    """Load the pixels, and let the gray that is transparent be one of them; ``image`` is kept."""
    factor = 1
    if isinstance(image, PngImagePlugin.PngImageFile) and image.tile:
        factor = _FACTORS.get(str(image.tile[0].args), 1)
    image.load()
    if factor > 1 and "transparency" in image.info:
        image = image.copy()
        image.info["transparency"] *= factor
    return image


def read_deep_png(encoded: bytes, channels: int, background: str) -> Shaped[np.ndarray, "h w c"]:
    """Read 16 bits per channel, over the background if 1 or 3 channels are wanted."""
    data = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    array = rearrange(decode_png(data, mode=ImageReadMode.UNCHANGED), "c h w -> h w c").numpy()
    if channels not in (1, 3) or array.shape[2] not in (2, 4):
        return array
    below = np.array(ImageColor.getrgb(background)[:3]) * 257.0  # 255 * 257 = 65,535
    if array.shape[2] == 2:
        below = below @ np.array(LUMA)
    opacity = array[..., -1:] / 65_535
    return (array[..., :-1] * opacity + below * (1 - opacity)).round().astype(np.uint16)


def fill_transparent(
    array: Shaped[np.ndarray, "h w *c"], image: Image.Image, channels: int, background: str
) -> Shaped[np.ndarray, "h w *c2"]:
    """Fill the one color of a PNG of 16 bits that is transparent, which no library does."""
    transparent = np.atleast_1d(image.info.get("transparency", -1))
    pixels = array.reshape(*array.shape[:2], -1)
    is_it = pixels.shape[2:] == transparent.shape and array.dtype == np.uint16
    if not is_it or channels not in (1, 3):
        return array
    below = np.array(ImageColor.getrgb(background)[:3]) * 257.0  # 255 * 257 = 65,535
    if channels == pixels.shape[2] == 1:
        below = below @ np.array(LUMA)[:, None]
    is_below = (pixels == transparent).all(axis=2, keepdims=True)
    return np.where(is_below, below.round().astype(np.uint16), pixels)
