"""From an image, a clip or a sound in memory to values that divide into tokens."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Shaped
from PIL import Image
from torch import Tensor

from vqtrain.data.decoding.images import from_array, from_pillow, one_line
from vqtrain.data.media import IMAGE, SOUND, VIDEO, media_of
from vqtrain.errors import BadSampleError, ConfigError
from vqtrain.ops.pixels import ValueRange, to_images
from vqtrain.ops.pixels import to_pixels as from_samples
from vqtrain.tokenizer.checks import LARGEST

INT16_RANGE: ValueRange = (-(2.0**15), 2.0**15)


def to_pixels(
    sample: object, *, axes: int, channels: int, value_range: ValueRange | None
) -> Shaped[Tensor, " c *size"]:
    """Take the values of a sample: of an image, a clip or a sound, by its number of axes.

    Args:
        sample: A PIL image of any mode, or an array, in any memory layout: an image [h, w] or
            [h, w, c], a clip [t, h, w, c], a sound [t] or [c, t].
        axes: Of a sample, besides its channels.
        channels: 1 for gray or mono, 3 for color. An image of another number must have as many; a
            sound's channels become one by their mean, and one becomes several.
        value_range: Values of black and white, or None for uint8. Those of a sound are of the
            tokenizer; the array has int16, or floats in [-1, 1].

    Raises:
        BadSampleError: If its channels or its values do not fit.
    """
    media = media_of(axes)
    if media is IMAGE and isinstance(sample, Image.Image):
        with one_line():
            pixels = from_pillow(
                sample, channels=channels, value_range=value_range, background="white"
            )
        return rearrange(pixels, "h w c -> c h w")
    if not isinstance(sample, np.ndarray):
        what = {
            IMAGE: "a PIL image or a numpy array",
            VIDEO: "a numpy array [t, h, w, c]",
            SOUND: "a numpy array [t] or [c, t]",
        }
        raise BadSampleError(f"preprocess takes {what[media]}, got {type(sample).__name__}")
    if media is IMAGE:
        pixels = from_array(sample, channels=channels, value_range=value_range)
        return rearrange(pixels, "h w c -> c h w")
    if media is VIDEO:
        return _from_clip(sample, channels, value_range)
    return _from_sound(sample, channels, value_range)


def _from_clip(
    array: Shaped[np.ndarray, "..."], channels: int, value_range: ValueRange | None
) -> Shaped[Tensor, "c t h w"]:
    if array.ndim != 4 or not array.size:
        raise BadSampleError(
            f"an array {list(array.shape)} is not a clip: [t, h, w, c] is, and an image[None]"
        )
    if value_range is None and array.dtype.kind == "f":
        raise BadSampleError(f"a clip is an array of uint8, got {array.dtype}")
    if channels in (1, 3) and array.shape[3] not in (1, 3):
        raise BadSampleError(f"an array {list(array.shape)} does not fit {channels} channels")
    frames = rearrange(array, "t h w c -> (t h) w c")
    pixels = from_array(frames, channels=channels, value_range=value_range)
    return rearrange(pixels, "(t h) w c -> c t h w", t=len(array))


def _from_sound(
    array: Shaped[np.ndarray, "..."], channels: int, value_range: ValueRange | None
) -> Shaped[Tensor, "c t"]:
    shape = list(array.shape)
    if array.ndim not in (1, 2) or not array.size or (array.ndim == 2 and shape[0] > shape[1]):
        raise BadSampleError(
            f"an array {shape} is not a sound: [t] or [c, t] is, and a transposed [t, c]"
        )
    if array.dtype != np.int16 and array.dtype.kind != "f":
        raise BadSampleError(
            f"an array of {array.dtype} is not a sound: int16 or floats in [-1, 1] are"
        )
    values = torch.from_numpy(np.atleast_2d(array).astype(np.float32))
    if array.dtype == np.int16:
        values = to_images(values, value_range=INT16_RANGE)
    if not bool((values.abs() <= LARGEST).all()):  # NaN is not below it
        raise BadSampleError("a sound of floats must have values in [-1, 1]")
    if channels == 1:
        values = values.mean(dim=0, keepdim=True)
    elif len(values) == 1:
        values = values.expand(channels, -1)
    if len(values) != channels:
        raise BadSampleError(f"a sound of {shape[0]} channels does not fit {channels} channels")
    return from_samples(values, value_range=value_range)


def fitting(
    pixels: Shaped[Tensor, " c *size"], unit: Sequence[int], token_shape: Callable[..., object]
) -> Shaped[Tensor, " c *kept"]:
    """Crop to the largest size within a sample that a tokenizer takes; nothing is resampled.

    Images are cropped at the center, as the frames of a clip are; of time the beginning is kept.
    Whole tokens are kept, or of time one position more, which causal networks take.

    Args:
        pixels: The sample.
        unit: The sides of a token.
        token_shape: Refuses a size by a ConfigError, as ``Tokenizer.token_shape`` does.

    Raises:
        BadSampleError: If no such size is taken: some encoders and codebooks take one size alone.
    """
    media = media_of(pixels.ndim - 1)
    if media is IMAGE:
        pixels = whole_tokens(pixels, unit)
        lengths = [pixels.shape[1]]
    else:
        pixels = whole_tokens(pixels, unit[1:]) if media is VIDEO else pixels
        time, step = pixels.shape[1], unit[0]
        whole = {time, time // step * step, (time - 1) // step * step + 1}
        lengths = sorted(whole - {0}, reverse=True)
    refusals = []
    for length in lengths:
        try:
            token_shape(length, *pixels.shape[2:])
        except ConfigError as error:
            refusals.append(error)
        else:
            return pixels[:, :length]
    remedy = ": resize the image first" if media is IMAGE else ""
    raise BadSampleError(f"{refusals[0]}{remedy}") from refusals[0]


def whole_tokens(
    pixels: Shaped[Tensor, "*_ height width"], unit: Sequence[int]
) -> Shaped[Tensor, "*_ h_kept w_kept"]:
    """Crop at the center to multiples of ``unit``, the height and width of a token in px.

    Raises:
        BadSampleError: If nothing is left.
    """
    height, width = pixels.shape[-2:]
    rows, columns = height // unit[0] * unit[0], width // unit[1] * unit[1]
    if not rows or not columns:
        raise BadSampleError(f"{width} x {height} px hold no token of {unit[1]} x {unit[0]} px")
    top, left = (height - rows) // 2, (width - columns) // 2
    return pixels[..., top : top + rows, left : left + columns]
