"""An image, its reconstruction and its ids, side by side in one file with captions below."""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from einops import rearrange
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vqtrain.shapes import Pixels

MARGIN = 4
FONT_SIZE = 13
CAPTION_HEIGHT = 20
# The share of a turn between the hues of consecutive ids: neighbors stay far apart.
GOLDEN = (math.sqrt(5) - 1) / 2
COLORS = 1024


def side_by_side(panels: Sequence[tuple[UInt8[np.ndarray, "h w c"], str]]) -> Image.Image:
    """Put images of one size side by side, each above a line of text."""
    height, width, _ = panels[0][0].shape
    whole = Image.new(
        "RGB",
        ((width + MARGIN) * len(panels) + MARGIN, height + MARGIN + CAPTION_HEIGHT),
        "white",
    )
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(FONT_SIZE)
    for place, (panel, caption) in enumerate(panels):
        left = MARGIN + place * (width + MARGIN)
        whole.paste(Image.fromarray(panel), (left, MARGIN))
        draw.text((left, height + MARGIN + 2), caption, fill="black", font=font)
    return whole


def to_panel(pixels: Pixels) -> UInt8[np.ndarray, "h w 3"]:
    """Take the one image of a batch as color; of many channels the first one, as gray."""
    shown = pixels if pixels.shape[1] == 3 else pixels[:, :1].expand(-1, 3, -1, -1)
    return rearrange(shown, "1 c h w -> h w c").cpu().numpy()


def ids_panel(
    grids: Sequence[Int64[Tensor, "_ _"]], height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw grids of ids, a color for each id, the same in every image.

    Several grids, of codebooks or of scales, are laid out in rows, beginning at the top left.

    Args:
        grids: Of one image.
        height: Of the panel, in px.
        width: Of the panel, in px.
    """
    columns = math.ceil(math.sqrt(len(grids)))
    rows = math.ceil(len(grids) / columns)
    panel = Image.new("RGB", (width, height), "white")
    gap = min(MARGIN, width // columns // 8) if len(grids) > 1 else 0
    size = ((width + gap) // columns - gap, (height + gap) // rows - gap)
    for number, grid in enumerate(grids):
        cell = Image.fromarray(_color(grid)).resize(size, Image.Resampling.NEAREST)
        place = (number % columns * (size[0] + gap), number // columns * (size[1] + gap))
        panel.paste(cell, place)
    return np.asarray(panel)


def _color(grid: Int64[Tensor, "rows columns"]) -> UInt8[np.ndarray, "rows columns c"]:
    palette = np.array([_color_of(number) for number in range(COLORS)], dtype=np.uint8)
    return palette[(grid.cpu() % COLORS).numpy()]


def _color_of(number: int) -> tuple[int, int, int]:
    # Hues in three brightnesses, so that more colors can be distinguished.
    color = colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.65, (0.95, 0.75, 0.55)[number % 3])
    red, green, blue = (round(255 * part) for part in color)
    return red, green, blue
