"""From a picture or an array in memory to pixels that divide into tokens."""

import numpy as np
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from vqtrain.data.images import from_array, from_picture
from vqtrain.ops.pixels import ValueRange


def to_pixels(
    picture: Image.Image | np.ndarray, *, channels: int, value_range: ValueRange | None, unit: int
) -> Shaped[Tensor, "h w c"]:
    """Take a picture's pixels, cropped at its center to multiples of ``unit``.

    Args:
        picture: A PIL picture, or an array [h, w] or [h, w, c].
        channels: 1 for gray, 3 for color; any other number is that of the picture.
        value_range: Values of black and white, or None for uint8.
        unit: Side of a token in px.

    Raises:
        BadSampleError: If its channels or its values do not fit.
    """
    if isinstance(picture, Image.Image):
        pixels = from_picture(
            picture, channels=channels, value_range=value_range, background="white"
        )
    else:
        pixels = from_array(picture, channels=channels, value_range=value_range)
    height, width, _ = pixels.shape
    rows, columns = height % unit, width % unit
    top, left = rows // 2, columns // 2
    return pixels[top : top + height - rows, left : left + width - columns]
