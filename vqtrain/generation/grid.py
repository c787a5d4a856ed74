"""Images in rows and columns of one picture."""

import math

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image

from vqtrain.shapes import Pixels

MARGIN = 2


def nearly_square(count: int) -> int:
    """Return how many columns make a grid of so many images nearly as high as wide.

    Example:
        >>> [nearly_square(count) for count in (1, 2, 9, 10)]
        [1, 2, 3, 4]
    """
    return math.ceil(math.sqrt(count))


def image_grid(pixels: Pixels, columns: int) -> Image.Image:
    """Lay images out row by row, with white between them; the last row may be incomplete.

    Args:
        pixels: Of 3 channels, or of others, of which the first one is shown as gray.
        columns: Images in a row, at least 1.
    """
    images = (pixels if pixels.shape[1] == 3 else pixels[:, :1].expand(-1, 3, -1, -1)).cpu()
    rows = math.ceil(len(images) / columns)
    missing = images.new_full((rows * columns - len(images), *images.shape[1:]), 255)
    framed = torch.nn.functional.pad(
        torch.cat([images, missing]), (0, MARGIN, 0, MARGIN), value=255
    )
    grid = rearrange(framed, "(r c) rgb h w -> (r h) (c w) rgb", c=columns)
    return Image.fromarray(_without_margin(grid.numpy()))


def _without_margin(grid: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "_ _ 3"]:
    return np.ascontiguousarray(grid[:-MARGIN, :-MARGIN])
