"""Frames of encoded videos, read by PyAV: when each is shown, and the pixels of some."""

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image
from torch import Tensor

from vqtrain.data.decoding.images import from_pillow
from vqtrain.drawing.mp4 import load_av
from vqtrain.errors import BadSampleError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

# What FFmpeg may open. A playlist, for one, would make it open files and addresses of its choice.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
# The parts of an mp4 that it cannot lack.
_BOXES = (b"moov", b"moof", b"mdat")


# Called with the pixels of a frame, upright; returns what is kept of it.
Keep = Callable[[UInt8[Tensor, "h w c"]], Tensor]


class Frames(ABC):
    """What clips are taken of."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the frames."""

    @abstractmethod
    def read(
        self, numbers: Sequence[int], keep: Keep, *, channels: int, background: str
    ) -> list[Tensor]:
        """Decode some frames.

        Args:
            numbers: Which frames, rising.
            keep: What is done with each; it may be called with a frame again.
            channels: 1 or 3.
            background: Color under transparent pixels.

        Returns:
            What ``keep`` returned for each.

        Raises:
            BadSampleError: If one cannot be decoded.
        """

    @abstractmethod
    def each(self, *, channels: int, background: str) -> Iterator[UInt8[Tensor, "h w c"]]:
        """Decode all frames, one after the other.

        Raises:
            BadSampleError: If one cannot be decoded.
        """


@final
class OneSize:
    """Passes frames on, and refuses those of another size than the first one's."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None

    def __call__(self, pixels: UInt8[Tensor, "h w c"]) -> UInt8[Tensor, "h w c"]:
        """Check a frame.

        Raises:
            BadSampleError: If it is of another size.
        """
        height, width = pixels.shape[:2]
        self._size = self._size or (width, height)
        if self._size != (width, height):
            raise BadSampleError(
                f"its frames are of several sizes: {self._size[0]} x {self._size[1]} and "
                f"{width} x {height} px"
            )
        return pixels


@final
class Video(Frames):
    """An open video.

    Args:
        container: The file.

    Attributes:
        times: When each frame is first shown, in ticks, in the order of time.
        end: When the last one is no longer shown, in ticks.
        tick: The unit of the times, in seconds.
        kind: The container, as the suffix of a file.
        coding: Name of the codec, and how it stores pixels.

    Raises:
        BadSampleError: If it has no video track, or is damaged.
    """

    def __init__(self, container: "InputContainer") -> None:
        from av.stream import Discard, Disposition
        from av.video.reformatter import VideoReformatter

        cover = Disposition.attached_pic
        tracks = [track for track in container.streams.video if not track.disposition & cover]
        if not tracks:
            raise BadSampleError("it has no video track")
        self._container, self._track = container, tracks[0]
        # One for all frames: to prepare a conversion takes longer than that of a small frame.
        self._reformatter = VideoReformatter()
        context = self._track.codec_context
        if context is None:
            raise BadSampleError("its video track is of an unknown coding")
        for other in container.streams:
            if other.index != self._track.index:
                other.discard = Discard.all
        # More threads return frames of a damaged file without an error, and are no faster where a
        # process loads each batch.
        context.thread_count = 1
        assert self._track.time_base is not None, "FFmpeg gives every track one"
        self.tick = self._track.time_base
        self.coding = f"{context.name} {context.pix_fmt}"
        self.kind = container.format.name
        self._scan()

    def _scan(self) -> None:
        """Read when each frame is shown, without decoding it: headers are often wrong."""
        shown: dict[int, int] = {}
        # Of the first packet and of each key frame, when it is shown and where to look for it.
        self._keys: list[tuple[int, int]] = []
        for packet in self._container.demux(self._track):
            if not packet.size:
                continue
            if packet.is_corrupt:
                raise BadSampleError(f"it is damaged or cut off after {len(shown)} frames")
            if packet.pts is None:
                raise BadSampleError("its frames have no times")
            if packet.is_keyframe or not self._keys:
                begin = packet.pts if packet.dts is None else min(packet.pts, packet.dts)
                self._keys.append((packet.pts, begin))
            if not packet.is_discard:
                shown[packet.pts] = packet.duration or 0
        if not shown:
            raise BadSampleError("its video track is empty")
        self.times: Int64[np.ndarray, " n"] = np.array(sorted(shown), dtype=np.int64)
        last = int(self.times[-1])
        before = int(self.times[-2]) if len(self.times) > 1 else last - 1
        self.end = last + (shown[last] if shown[last] > 0 else last - before)

    def __len__(self) -> int:
        return len(self.times)

    def read(
        self, numbers: Sequence[int], keep: Keep, *, channels: int, background: str
    ) -> list[Tensor]:
        """Decode some frames, from the key frame before the first of them to the last."""
        from av.error import FFmpegError

        times = self.times[numbers].tolist()
        kept, reason = list[Tensor](), ""
        first = self._keys[0]
        nearest = max((key for key in self._keys if key[0] <= times[0]), default=first)
        # From the first packet, if what says that it is a key frame is wrong.
        for key in dict.fromkeys((nearest, first)):
            kept, reason = [], ""
            try:
                frames = self._decode(times, key)
                kept.extend(keep(self._pixels(frame, channels, background)) for frame in frames)
            except FFmpegError as error:
                reason = f": {error.strerror}"
            if len(kept) == len(times):
                return kept
        raise self._broken(numbers[len(kept)], reason)

    def each(self, *, channels: int, background: str) -> Iterator[UInt8[Tensor, "h w c"]]:
        """Decode all frames, one after the other."""
        from av.error import FFmpegError

        done, reason = 0, ""
        try:
            for frame in self._decode(self.times.tolist(), self._keys[0]):
                yield self._pixels(frame, channels, background)
                done += 1
        except FFmpegError as error:
            reason = f": {error.strerror}"
        if done < len(self):
            raise self._broken(done, reason)

    @property
    def is_variable(self) -> bool:
        """Whether frames are shown for different times, by more than the rounding to ticks."""
        return len(self) > 2 and int(np.ptp(np.diff(self.times))) > 2

    @property
    def key_every(self) -> int:
        """How many frames the longest distance from one key frame to the next has."""
        keys = [int(np.searchsorted(self.times, time)) for time, _ in self._keys]
        return max(after - before for before, after in pairwise([*sorted(keys), len(self)]))

    def _broken(self, number: int, reason: str = "") -> BadSampleError:
        return BadSampleError(f"frame {number} of {len(self)} cannot be decoded{reason}")

    def _decode(self, times: list[int], key: tuple[int, int]) -> Iterator["VideoFrame"]:
        """Yield the frames of some times, as long as none is missing or damaged."""
        self._container.seek(key[1], stream=self._track)
        wanted, last = iter(times), None
        time = next(wanted)
        begun = False
        for packet in self._container.demux(self._track):
            begun = begun or packet.pts == key[0]
            for frame in packet.decode() if begun else []:
                if frame.pts is None or (last is not None and frame.pts <= last):
                    raise BadSampleError("its frames are not in the order of their times")
                last = frame.pts
                if frame.pts > time or (frame.pts == time and frame.is_corrupt):
                    return
                if frame.pts == time:
                    yield frame
                    following = next(wanted, None)
                    if following is None:
                        return
                    time = following

    def _pixels(
        self, frame: "VideoFrame", channels: int, background: str
    ) -> UInt8[Tensor, "h w c"]:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and frame.width * frame.height > limit:
            raise BadSampleError(f"frames of {frame.width} x {frame.height} px could be a bomb")
        if any(component.is_alpha for component in frame.format.components):
            image = Image.fromarray(self._array(frame, "rgba"))
            pixels = from_pillow(image, channels=channels, value_range=None, background=background)
        else:
            array = self._array(frame, "rgb24" if channels == 3 else "gray")
            pixels = torch.from_numpy(array.reshape(frame.height, frame.width, channels))
        return torch.rot90(pixels, frame.rotation // 90) if frame.rotation else pixels

    def _array(self, frame: "VideoFrame", layout: str) -> np.ndarray:
        return self._reformatter.reformat(frame, format=layout, threads=1).to_ndarray()


@contextmanager
def open_video(encoded: bytes) -> Iterator[Video]:
    """Open a video, of which nothing is decoded yet.

    Raises:
        BadSampleError: If the bytes are no video, or are cut off.
        ConfigError: If PyAV is not installed.
    """
    av = load_av()
    length = _length(encoded)
    if length > len(encoded):
        raise BadSampleError(f"it is cut off: {len(encoded):,} of {length:,} bytes are there")
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "", "fflags": "+genpts"}
    try:
        # A title that is no UTF-8 is nobody's business here.
        opened = av.open(io.BytesIO(encoded), "r", options=options, metadata_errors="replace")
        with opened as container:
            yield Video(container)
    except av.error.FFmpegError as error:
        raise BadSampleError(f"cannot be read as a video: {error.strerror}") from error


def _length(encoded: bytes) -> int:
    """Return how long an mp4 or webm says that it is; what is not known of others is not told."""
    if encoded.startswith(_EBML):
        return _ebml_length(encoded)
    end = 0
    while end + 16 <= len(encoded):
        size, kind = struct.unpack_from(">I4s", encoded, end)
        if size == 1:
            size = struct.unpack_from(">Q", encoded, end + 8)[0]
        if size < 8:
            return 0
        if end + size > len(encoded):
            return end + int(size) if kind in _BOXES else 0
        end += size
    return 0


def _ebml_length(encoded: bytes) -> int:
    """Return where the only segment of a Matroska file ends; 0 if it does not say."""
    segment = encoded.find(_SEGMENT, 0, 4096)
    place = segment + len(_SEGMENT)
    if segment < 0 or place >= len(encoded) or not encoded[place]:
        return 0
    width = 9 - encoded[place].bit_length()  # of the number, marked by its first bit
    number = int.from_bytes(encoded[place : place + width]) ^ (1 << 7 * width)
    is_unknown = number == (1 << 7 * width) - 1
    return 0 if is_unknown else place + width + number
