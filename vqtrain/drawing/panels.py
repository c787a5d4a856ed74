"""A sample as a picture: an image as it is, a clip as a strip of frames, a sound as a spectrogram.

All samples of one size become panels of one size, so that they can be put next to each other, and
cut apart again.
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from vqtrain.drawing.spectrogram import HEIGHT, WIDTH, spectrogram
from vqtrain.ops.pixels import to_pixels

RGB = UInt8[np.ndarray, "_ _ 3"]

# Of a strip: frames at most, the px that they fill if at least two do, and those after each.
FRAMES, STRIP_WIDTH, GAP = 8, 768, 2
# Samples side by side at most, by their number of axes.
SOUND, IMAGE, CLIP = 1, 2, 3
MOST = {SOUND: 4, IMAGE: 8, CLIP: 4}


def to_panel(sample: Shaped[Tensor, " c *size"], rate: float | None = None) -> RGB:
    """Draw a sample in [-1, 1], or an image or a clip of 8 bits; of many channels the first one.

    Args:
        sample: An image [c, h, w], a clip [c, t, h, w] or a sound [c, t].
        rate: Values a second of a sound; None if that is not known.
    """
    axes = sample.ndim - 1
    if axes == SOUND:
        return spectrogram(sample.detach().float().cpu().numpy(), rate)
    pixels = to_pixels(sample) if sample.is_floating_point() else sample
    shown = (pixels if len(pixels) == 3 else pixels[:1].expand(3, *pixels.shape[1:])).cpu()
    if axes == IMAGE:
        return rearrange(shown, "c h w -> h w c").numpy()
    frames = shown[:, frames_of(shown.shape[1], shown.shape[3])]
    strip = np.full((*panel_size(sample.shape[1:]), 3), 255, dtype=np.uint8)
    for place, frame in enumerate(rearrange(frames, "c t h w -> t h w c").numpy()):
        left = place * (frame.shape[1] + GAP)
        strip[:, left : left + frame.shape[1]] = frame
    return strip


def panel_size(size: Sequence[int]) -> tuple[int, int]:
    """Return height and width of the panel of a sample, in px.

    Example:
        >>> panel_size((32, 48)), panel_size((17, 64, 64)), panel_size((16000,))
        ((32, 48), (64, 528), (276, 432))
    """
    if len(size) == SOUND:
        return HEIGHT, WIDTH
    height, width = size[-2:]
    if len(size) == IMAGE:
        return height, width
    return height, len(frames_of(size[0], width)) * (width + GAP)


def frames_of(count: int, width: int) -> list[int]:
    """Choose the frames of a strip: as many as fit, evenly, with the first and the last.

    Example:
        >>> frames_of(17, 64), frames_of(17, 256), frames_of(1, 64)
        ([0, 2, 5, 7, 9, 11, 14, 16], [0, 16], [0])
    """
    most = min(count, max(2, min(FRAMES, STRIP_WIDTH // (width + GAP))))
    return np.linspace(0, count - 1, most).round().astype(int).tolist()


def in_rows(*rows: Float[Tensor, "b c *size"], rate: float | None = None) -> RGB:
    """Draw samples side by side, at most ``MOST``, and each row above the next.

    Args:
        rows: In [-1, 1]; all of one size.
        rate: As of ``to_panel``.
    """
    count = min(MOST[rows[0].ndim - 2], len(rows[0]))
    drawn = [
        np.concatenate([to_panel(sample, rate) for sample in row[:count]], axis=1) for row in rows
    ]
    return np.concatenate(drawn)


def flat_ids(token_ids: Int64[Tensor, " k *tokens"], axes: int) -> list[Int64[Tensor, "_ _"]]:
    """Lay the ids of a sample that are no image's out like its panel.

    Args:
        token_ids: Of one sample, [k, *tokens].
        axes: Of the sample.

    Returns:
        Of a clip, for each codebook its frames side by side; of a sound, all codebooks as rows of
        one grid.
    """
    if axes == CLIP and token_ids.ndim == 1 + CLIP:
        return list(torch.unbind(rearrange(token_ids, "k t h w -> k h (t w)")))
    return [token_ids.flatten(1)]
