"""From an image or an array in memory to pixels that divide into tokens."""

from collections.abc import Callable, Sequence

import numpy as np
from einops import rearrange
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from vqtrain.data.decoding.images import from_array, from_pillow, one_line
from vqtrain.errors import BadSampleError, ConfigError
from vqtrain.ops.pixels import ValueRange


def to_pixels(
    image: object,
    *,
    channels: int,
    value_range: ValueRange | None,
    unit: Sequence[int],
) -> Shaped[Tensor, "c h w"]:
    """Take an image's pixels, center-cropped to multiples of ``unit``.

    Args:
        image: A PIL image of any mode, or an array, in any memory layout, [h, w] or [h, w, c].
        channels: 1 for gray, 3 for color; any other number must be that of the image.
        value_range: Values of black and white, or None for uint8.
        unit: Height and width of a token in px.

    Raises:
        BadSampleError: If its channels, its values or its size do not fit.
    """
    if isinstance(image, Image.Image):
        with one_line():
            pixels = from_pillow(
                image, channels=channels, value_range=value_range, background="white"
            )
    elif not isinstance(image, np.ndarray):
        raise BadSampleError(
            f"preprocess takes a PIL image or a numpy array, got {type(image).__name__}"
        )
    else:
        pixels = from_array(image, channels=channels, value_range=value_range)
    return whole_tokens(rearrange(pixels, "h w c -> c h w"), unit)


def fitting(
    pixels: Shaped[Tensor, "c h w"], token_shape: Callable[..., object]
) -> Shaped[Tensor, "c h w"]:
    """Return pixels of a size that a tokenizer takes, as ``Tokenizer.token_shape`` says.

    Raises:
        BadSampleError: If it does not: some encoders and codebooks take one size alone.
    """
    try:
        token_shape(*pixels.shape[1:])
    except ConfigError as error:
        raise BadSampleError(f"{error}: resize the image first") from error
    return pixels


def whole_tokens(
    pixels: Shaped[Tensor, "c h w"], unit: Sequence[int]
) -> Shaped[Tensor, "c h_kept w_kept"]:
    """Crop at the center to multiples of ``unit``, the height and width of a token in px.

    Raises:
        BadSampleError: If nothing is left.
    """
    height, width = pixels.shape[1:]
    rows, columns = height // unit[0] * unit[0], width // unit[1] * unit[1]
    if not rows or not columns:
        raise BadSampleError(f"{width} x {height} px hold no token of {unit[1]} x {unit[0]} px")
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[:, top : top + rows, left : left + columns]
