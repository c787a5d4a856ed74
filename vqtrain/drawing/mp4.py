"""Frames as a file that players, browsers and data loaders read: H.264 in an mp4."""

import io
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from vqtrain.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType


def load_av() -> "ModuleType":
    """Import PyAV, of the extra ``video``, which images do not need.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError('clips need PyAV: pip install "vqtrain[video]"') from error
    return av


def encode_mp4(
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    *,
    times: Iterable[int],
    tick: Fraction,
    crf: int,
    key_every: int | None = None,
) -> bytes:
    """Encode frames in yuv420p, which every browser plays; equal frames give equal bytes.

    Args:
        frames: At least one; all of one size, of even height and width.
        times: When each is first shown, in ticks and rising; one more says when the last one ends.
        tick: The unit of the times, in s.
        crf: Constant rate factor of x264, in 0..51, from the best on.
        key_every: Frames from one key frame to the next, at most; None for x264's 250.

    Raises:
        ConfigError: If PyAV is missing.
    """
    av = load_av()
    durations = {first: end - first for first, end in pairwise(times)}
    frames = iter(frames)
    first = next(frames)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        track = container.add_stream("libx264", options={"crf": str(crf)})
        track.height, track.width = first.shape[:2]
        track.pix_fmt = "yuv420p"
        track.time_base = track.codec_context.time_base = tick
        track.codec_context.thread_count = 1
        # What swscale makes; without a word players guess by the size.
        track.codec_context.colorspace = av.video.reformatter.Colorspace.SMPTE170M
        track.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
        if key_every is not None:
            track.codec_context.gop_size = key_every
        pictures = chain(zip(chain([first], frames), durations, strict=True), [(None, None)])
        for array, time in pictures:
            picture = None  # after the last frame the encoder is emptied
            if array is not None:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
                picture.pts, picture.time_base = time, tick
            for packet in track.encode(picture):
                packet.duration = durations[packet.pts]
                container.mux(packet)
    return file.getvalue()
