"""Clips and sounds as files that a browser plays."""

import io
import wave
from fractions import Fraction

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from vqtrain.drawing.mp4 import encode_mp4
from vqtrain.drawing.panels import CLIP, SOUND
from vqtrain.ops.pixels import to_pixels

# Of a clip that does not know its own frames a second.
USUAL_FPS = 8.0
# Of a sound that does not know its own values a second.
USUAL_RATE = 16_000
# Constant rate factor of x264; at 16 its errors are far below those of tokenizers.
QUALITY = 16
LOUDEST = 2**15 - 1


def to_files(
    original: Float[Tensor, " c *size"],
    reconstruction: Float[Tensor, " c *size"],
    rate: float | None,
) -> dict[str, bytes]:
    """Write what a browser plays of a sample in [-1, 1] and its reconstruction.

    Args:
        original: The sample.
        reconstruction: Of the same size.
        rate: Frames or values a second, if they are known.

    Returns:
        Files by their suffixes: of a clip one with both, of a sound one of each; none of an image.

    Raises:
        ConfigError: If PyAV is needed and missing.
    """
    axes = original.ndim - 1
    if axes == CLIP:
        return {".mp4": to_mp4(original, reconstruction, fps=rate)}
    if axes == SOUND:
        both = {".original.wav": original, ".reconstruction.wav": reconstruction}
        return {end: to_wav(sound, round(rate or USUAL_RATE)) for end, sound in both.items()}
    return {}


def to_mp4(*clips: Float[Tensor, "c t h w"], fps: float | None) -> bytes:
    """Write clips side by side as one mp4: H.264 in yuv420p, which every browser plays.

    Its sides are even; the last row or column of odd ones is repeated.

    Args:
        clips: In [-1, 1], all of one size; of many channels the first one is shown.
        fps: Frames a second; None for ``USUAL_FPS``.

    Raises:
        ConfigError: If PyAV is missing.
    """
    pixels = np.concatenate([_frames(clip) for clip in clips], axis=2)
    odd = [(0, 0), *((0, side % 2) for side in pixels.shape[1:3]), (0, 0)]
    tick = 1 / Fraction(fps or USUAL_FPS).limit_denominator(1001)
    frames = np.pad(pixels, odd, mode="edge")
    return encode_mp4(frames, times=range(len(frames) + 1), tick=tick, crf=QUALITY)


def to_wav(sound: Float[Tensor, "c t"], sample_rate: int) -> bytes:
    """Write a sound in [-1, 1] as wav of 16 bits; what is louder is clipped."""
    values = sound.detach().float().cpu().clamp(-1, 1).nan_to_num() * LOUDEST
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(len(sound))
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(rearrange(values.round(), "c t -> t c").numpy().astype("<i2").tobytes())
    return file.getvalue()


def _frames(clip: Float[Tensor, "c t h w"]) -> UInt8[np.ndarray, "t h w 3"]:
    shown = clip if len(clip) == 3 else clip[:1].expand(3, *clip.shape[1:])
    return rearrange(to_pixels(shown), "c t h w -> t h w c").cpu().numpy()
