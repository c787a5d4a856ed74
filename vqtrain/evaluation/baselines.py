"""Well-known codecs at the rate of a tokenizer: JPEG, WebP, and fewer pixels; one frame of clips.

Each image is coded at the quality whose file is nearest to the rate, because a tokenizer spends the
same bits on every image too. The rate counts the whole file with its headers: all that is needed to
decode the image. Headers are about 30 bytes of a WebP and some hundreds of a JPEG. At the rates of
small grids even the smallest file is larger; then the smallest is used, and its rate returned.
"""

import io
import math
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vqtrain.errors import require
from vqtrain.shapes import Pixels
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.rate import rate_in

MODES = {1: "L", 3: "RGB"}
# The lowest and the highest quality of a format, and other options of its encoder.
QUALITIES = {"JPEG": (1, 100), "WEBP": (0, 100)}
OPTIONS = {"JPEG": {"optimize": True}, "WEBP": {}}
# A WebP may shrink a little where the quality grows: so many neighbors on each side are tried too.
# With them the nearest file was found at every rate of all photographs that were searched in full.
NEIGHBORS = 2

Baseline = Callable[[Pixels, float, tuple[int, ...]], tuple[Pixels, float]]


def tokens_per_image(
    tokenizer: Tokenizer, size: Sequence[int], num_tokens: int | None = None
) -> int:
    """Count the ids of one sample of some size, over all codebooks and scales; 0 of none.

    ``num_tokens`` are those of a sequence that count, if not all do.
    """
    *codebooks, tokens = tokenizer.token_shape(*size)
    return math.prod(codebooks) * (num_tokens or tokens)


def bits_per_pixel(
    tokenizer: Tokenizer, size: Sequence[int], num_tokens: int | None = None
) -> float | None:
    """Return the bits of the ids of a sample of some size, by its positions, such as pixels.

    An id has log2(size) bits, a fraction where the size is no power of two, however often it is
    used. None for a continuous codebook, whose latents have no rate.
    """
    if not tokenizer.codebook.num_codebooks:
        return None
    count = tokens_per_image(tokenizer, size, num_tokens)
    return count * math.log2(tokenizer.vocab_size) / math.prod(size)


def kbit_per_second(
    tokenizer: Tokenizer, size: Sequence[int], num_tokens: int | None = None
) -> float | None:
    """Return the bits of the ids of a second of clips or sounds, in thousands.

    None if time is not known, and where ``bits_per_pixel`` is.
    """
    rate = rate_in(tokenizer.training_summary)
    bits = bits_per_pixel(tokenizer, size, num_tokens)
    if bits is None or rate is None or len(size) == 2:
        return None
    return bits * math.prod(size[1:]) * rate / 1000


def through_codec(
    pixels: UInt8[Tensor, "b c h w"], bits_per_pixel: float, factor: tuple[int, ...], *, codec: str
) -> tuple[UInt8[Tensor, "b c h w"], float]:
    """Code each image at the quality whose file is nearest to a rate, and decode it again.

    Args:
        pixels: Gray or color.
        bits_per_pixel: The rate to meet.
        factor: Not used.
        codec: JPEG, with Huffman tables of its own for each file, or WEBP. Otherwise as in Pillow,
            which halves the resolution of colors. A gray WebP is one without colors.

    Returns:
        The pixels, and the mean rate of the files.

    Raises:
        ConfigError: If the images have other channels.
    """
    del factor
    require(
        pixels.shape[1] in MODES,
        f"JPEG and WebP take images of 1 or 3 channels, these have {pixels.shape[1]}",
    )
    target = bits_per_pixel * pixels.shape[2] * pixels.shape[3] / 8
    arrays = rearrange(pixels, "b c h w -> b h w c").cpu().numpy()
    files = [nearest_file(array, target, codec) for array in arrays]
    decoded = np.stack([_decode(file, pixels.shape[1]) for file in files])
    result = rearrange(torch.from_numpy(decoded), "b h w c -> b c h w").contiguous()
    rate = 8 * sum(map(len, files)) / (len(files) * pixels.shape[2] * pixels.shape[3])
    return result.to(pixels.device), rate


def nearest_file(array: UInt8[np.ndarray, "h w c"], target: float, codec: str) -> bytes:
    """Return the file of an image that is nearest to a size; of equal ones the best.

    The quality is found by halving, as files grow with it, and among its neighbors.

    Args:
        array: Gray or color.
        target: Size of the file in bytes.
        codec: A key of ``QUALITIES``.
    """
    encode = cache(partial(_encode, _image(array), codec))
    least, most = QUALITIES[codec]
    # At the rates of most tokenizers the smallest file is too large, and there is nothing to halve.
    low, high = least, most if len(encode(least)) < target else least + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(encode(middle)) <= target else (low, middle)
    near = range(max(least, low - NEIGHBORS), min(most, high + NEIGHBORS) + 1)
    return encode(min(near, key=lambda quality: (abs(len(encode(quality)) - target), -quality)))


def down_up(
    pixels: UInt8[Tensor, "b c h w"], bits_per_pixel: float, factor: tuple[int, ...]
) -> tuple[UInt8[Tensor, "b c h w"], float]:
    """Keep one pixel for each position of the token grid, and enlarge that image again.

    Both by Pillow's bicubic, antialiased on the way down, and rounded to uint8.

    Args:
        pixels: Height and width are multiples of the factor.
        bits_per_pixel: Not used.
        factor: Image pixels per grid position, along height and width.

    Returns:
        The pixels, and the rate: 8 bits a channel and position, so 24 a position of color.
    """
    del bits_per_pixel
    channels, height, width = pixels.shape[1:]
    # As ``vqtrain.data.decoding.crops`` resizes: uint8, on the CPU, with channels last in memory.
    small = _resize(
        pixels.cpu().contiguous(memory_format=torch.channels_last),
        height // factor[0],
        width // factor[1],
    )
    result = _resize(small, height, width).contiguous()
    return result.to(pixels.device), 8 * channels * small[0, 0].numel() / (height * width)


def first_frame(
    pixels: UInt8[Tensor, "b c t h w"], bits_per_pixel: float, factor: tuple[int, ...]
) -> tuple[UInt8[Tensor, "b c t h w"], float]:
    """Repeat the first frame of each clip.

    Args:
        pixels: The clips.
        bits_per_pixel: Not used.
        factor: Not used.

    Returns:
        The pixels, and the rate: 8 bits a channel and pixel of one frame.
    """
    del bits_per_pixel, factor
    channels, frames = pixels.shape[1:3]
    return pixels[:, :, :1].expand_as(pixels).contiguous(), 8 * channels / frames


BASELINES: dict[str, Baseline] = {
    "jpeg": partial(through_codec, codec="JPEG"),
    "webp": partial(through_codec, codec="WEBP"),
    "down_up": down_up,
}
CLIP_BASELINES: dict[str, Baseline] = {"first_frame": first_frame}


def _resize(
    pixels: UInt8[Tensor, "b c _ _"], height: int, width: int
) -> UInt8[Tensor, "b c height width"]:
    return F.interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)


def _image(array: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _encode(image: Image.Image, codec: str, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, codec, quality=quality, **OPTIONS[codec])
    return file.getvalue()


def _decode(file: bytes, channels: int) -> UInt8[np.ndarray, "h w channels"]:
    with Image.open(io.BytesIO(file)) as image:
        array = np.asarray(image.convert(MODES[channels]))
    return array.reshape(*array.shape[:2], channels)
