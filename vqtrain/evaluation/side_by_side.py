"""A sample, its reconstruction and its ids as panels of one file, with captions below."""

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MARGIN = 4
FONT_SIZE = 13
# Of panels below each other, for their captions.
LEAST_WIDTH = 240
CAPTION_HEIGHT = 20
# The share of a turn between the hues of consecutive ids: neighbors stay far apart.
GOLDEN = (math.sqrt(5) - 1) / 2
COLORS = 1024


def side_by_side(
    panels: Sequence[tuple[UInt8[np.ndarray, "h w c"], str]], *, is_stacked: bool = False
) -> Image.Image:
    """Put pictures of one size side by side, or below each other, each above a line of text."""
    height, width, _ = panels[0][0].shape
    high, wide = (len(panels), 1) if is_stacked else (1, len(panels))
    step = height + MARGIN + CAPTION_HEIGHT
    across = (width + MARGIN) * wide + MARGIN
    whole = Image.new("RGB", (max(across, LEAST_WIDTH * is_stacked), step * high), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(FONT_SIZE)
    for place, (panel, caption) in enumerate(panels):
        row, column = (place, 0) if is_stacked else (0, place)
        left, top = MARGIN + column * (width + MARGIN), MARGIN + row * step
        whole.paste(Image.fromarray(panel), (left, top))
        draw.text((left, top + height + 2), caption, fill="black", font=font)
    return whole


def panels_of(
    picture: UInt8[np.ndarray, "_ _ 3"], size: tuple[int, int], *, is_stacked: bool = False
) -> list[UInt8[np.ndarray, "_ _ 3"]] | None:
    """Cut a picture of ``side_by_side`` into its panels of a size; None if it is another one."""
    (height, width), (rows, columns) = picture.shape[:2], size
    step_down, step_right = rows + MARGIN + CAPTION_HEIGHT, columns + MARGIN
    high, wide = height // step_down, (width - MARGIN) // step_right
    if is_stacked:
        wide, fits = 1, width == max(step_right + MARGIN, LEAST_WIDTH)
    else:
        fits = high == 1 and width == wide * step_right + MARGIN
    if not fits or height != high * step_down:
        return None
    return [
        picture[top : top + rows, left : left + columns]
        for top in range(MARGIN, height, step_down)
        for left in range(MARGIN, MARGIN + wide * step_right, step_right)
    ]


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
