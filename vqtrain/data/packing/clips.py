"""Packs of clips: each is decoded whole, and encoded again if that is asked."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, final

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

from vqtrain.data.decoding.clips import open_frames
from vqtrain.data.decoding.crops import Geometry, crop
from vqtrain.data.decoding.images import one_line
from vqtrain.data.decoding.videos import OneSize, Video
from vqtrain.data.media import VIDEO
from vqtrain.data.packing.base import Found, PackSettings
from vqtrain.data.settings.image import LARGEST_SIZE
from vqtrain.drawing.mp4 import encode_mp4
from vqtrain.errors import require
from vqtrain.ranges import Range, at_least, at_most, one_of, within

# Formats that can be written, by the word that a user writes.
FORMATS = ("keep", "mp4")
DEFAULT_KEY_EVERY, DEFAULT_CRF = 12, 18

# Suffixes by FFmpeg's name of the container; Matroska's has both of its own.
_SUFFIXES = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "avi": "avi", "gif": "gif"}
_WEBM, _HEADER_BYTES = b"webm", 64
EVEN = Range("an even number", lambda value: value % 2 == 0)


@final
@dataclass(frozen=True, kw_only=True)
class ClipPack(PackSettings):
    """The settings of a pack of clips.

    Attributes:
        format: ``keep`` for the files as they are, ``mp4`` to encode others again as H.264, without
            sound and with the times of their frames. Folders of frames, which have no times, are
            always kept.
        image_size: Largest short side in px; larger videos are reduced to it. None keeps all.
        key_every: Frames from one key frame to the next, at most: a clip that begins at any frame
            is decoded from the key frame before it.
        crf: Constant rate factor of x264, in 0..51, from the best on.

    Raises:
        ConfigError: If a value is invalid.
    """

    media = VIDEO

    format: Annotated[str, one_of(*FORMATS)]
    image_size: Annotated[int, at_least(2), at_most(LARGEST_SIZE), EVEN] | None
    key_every: Annotated[int, at_least(1)]
    crf: Annotated[int, within(0, 51)]

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        super().__post_init__()
        given = {"image_size": self.image_size, "key_every": self.key_every, "crf": self.crf}
        unset = {"image_size": None, "key_every": DEFAULT_KEY_EVERY, "crf": DEFAULT_CRF}
        for key, value in given.items():
            require(
                self.format == "mp4" or value == unset[key],
                f"{key}={value} needs format=mp4, which encodes again",
            )

    def examine(self, source: bytes) -> Found:
        """Decode all of a clip; its size is its frames, their width and their height."""
        with one_line(source), open_frames(source) as frames:
            pictures = map(OneSize(), frames.each(channels=3, background="white"))
            first = next(pictures)
            height, width = first.shape[:2]
            size = (len(frames), width, height)
            whole = chain([first], pictures)
            if not isinstance(frames, Video):
                _exhaust(whole)
                return Found(size=size, mode="frames", member=("frames", source))
            first_time = int(frames.times[0])
            seconds = float((frames.end - first_time) * frames.tick)
            mode = f"{frames.coding} {len(frames) / seconds:.4g} fps"
            if self.format == "keep" or self._fits(frames, size):
                _exhaust(whole)
                return Found(size=size, mode=mode, member=(_suffix(frames, source), source))
            target = self._target(width, height)
            encoded = encode_mp4(
                (_resized(picture, target) for picture in whole),
                times=[time - first_time for time in [*frames.times.tolist(), frames.end]],
                tick=frames.tick,
                crf=self.crf,
                key_every=self.key_every,
            )
            return Found(size=(len(frames), *target), mode=mode, member=("mp4", encoded))

    def rank(self, size: tuple[int, ...]) -> tuple[int | float, ...]:
        """Return the frames first, then their area."""
        frames, width, height = size
        return (frames, width * height)

    def shown(self, size: tuple[int, ...]) -> str:
        """Write the frames, and their width and height."""
        return "{} frames of {} x {} px".format(*size)

    def _fits(self, video: Video, size: tuple[int, int, int]) -> bool:
        """Tell whether a video is as it would be encoded."""
        is_mp4 = video.kind in _SUFFIXES and _SUFFIXES[video.kind] == "mp4"
        is_small = self.image_size is None or min(size[1:]) <= self.image_size
        is_quick = video.key_every <= self.key_every
        return is_mp4 and video.coding == "h264 yuv420p" and is_small and is_quick

    def _target(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height to reduce frames to, which are even."""
        short = min(width, height)
        wanted = short if self.image_size is None else min(short, self.image_size)
        width, height = (max(2, 2 * round(side * wanted / short / 2)) for side in (width, height))
        return width, height


def _resized(pixels: UInt8[Tensor, "h w 3"], target: tuple[int, int]) -> UInt8[np.ndarray, "_ _ 3"]:
    height, width = pixels.shape[:2]
    whole = Geometry(box=(0, 0, width, height), size=target, offset=(0, 0))
    return rearrange(crop(pixels, whole, target), "c h w -> h w c").numpy()


def _suffix(video: Video, source: bytes) -> str:
    is_webm = _WEBM in source[:_HEADER_BYTES]
    return _SUFFIXES.get(video.kind, "webm" if is_webm else "mkv")


def _exhaust(pictures: Iterator[object]) -> None:
    for _ in pictures:
        pass
