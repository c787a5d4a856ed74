"""From encoded videos, folders of frames and still images to clips of one size."""

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8
from PIL import UnidentifiedImageError
from torch import Tensor

from vqtrain.data.decoding.base import Transform
from vqtrain.data.decoding.crops import CROPS, crop_frames
from vqtrain.data.decoding.images import ImageTransform, one_line, open_image
from vqtrain.data.decoding.videos import Frames, Keep, OneSize, Video, open_video
from vqtrain.data.media import VIDEO
from vqtrain.errors import BadSampleError, ConfigError, TooShortError
from vqtrain.shapes import ImageSize, sides

# Where a tar says that it is one.
_TAR, _TAR_AT = b"ustar", 257


@final
@dataclass(frozen=True, kw_only=True)
class ClipTransform(Transform):
    """How encoded videos become clips of uint8; channels are last in memory.

    Every frame of a file that leaves enough of it behind itself is as likely as another to begin a
    clip. A file that is too short is a bad sample: nothing is repeated or padded.

    Attributes:
        image_size: Side of the square, or height and width, in px.
        crop: A key of ``CROPS``; all frames of a clip are cropped alike.
        flip: Whether to mirror half of the clips left to right; only with a generator.
        background: Color under transparent pixels, as ``PIL.ImageColor`` knows it.
        frames: Frames of a clip.
        fps: Frames a second: the clip holds what is shown at t, t + 1 / fps, t + 2 / fps and so on.
            None takes the frames of the file as they are. So do files whose frames have no times,
            folders of frames and still images.
        stride: Of the frames as they are, every ``stride``-th is taken; 1 with an ``fps``.
    """

    image_size: ImageSize
    crop: str
    flip: bool
    background: str
    frames: int
    fps: float | None
    stride: int

    media = VIDEO

    def __post_init__(self) -> None:
        """Look for the library, which is imported only where videos are."""
        if find_spec("av") is None:
            raise ConfigError('clips need PyAV: pip install "vqtrain[video]"')

    @property
    def sample_size(self) -> tuple[int, int, int]:
        """Frames, and height and width in px."""
        return (self.frames, *sides(self.image_size))

    @property
    def summary(self) -> Mapping[str, object]:
        """The size of the clips, how frames are cropped, and which of a file are taken."""
        keys = ("image_size", "crop", "frames", "fps", "stride")
        return {key: getattr(self, key) for key in keys}

    def sized(self, size: tuple[int, ...]) -> "ClipTransform":
        """Return the same for clips of other frames, height and width."""
        return replace(self, frames=size[0], image_size=list(size[1:]))

    def decode(
        self, encoded: bytes, generator: np.random.Generator | None
    ) -> UInt8[Tensor, "c t h w"]:
        """Decode and crop some frames; without a generator those in the middle."""
        with one_line(encoded), open_frames(encoded) as video:
            frames = _read(video, self._choose(video, generator), self)
            rows, columns = sides(self.image_size)
            height, width = frames[0].shape[:2]
            geometry = CROPS[self.crop](width, height, (columns, rows), generator)
            clip = crop_frames(frames, geometry, (columns, rows))
            if self.flip and generator is not None and generator.random() < 0.5:
                clip = clip.flip(2)
            return clip.permute(3, 0, 1, 2)

    def decode_whole(self, encoded: bytes) -> UInt8[Tensor, "c t h w"]:
        """Decode all frames of the rate or stride, from the first one on, without a crop."""
        with one_line(encoded), open_frames(encoded) as video:
            numbers = list(range(0, len(video), self.stride))
            if isinstance(video, Video) and self.fps is not None:
                count = np.ceil((video.end - video.times[0]) * float(video.tick) * self.fps - 1e-6)
                numbers = self._shown(video, 0, max(1, int(count)))
            return torch.stack(_read(video, numbers, self)).permute(3, 0, 1, 2)

    def _choose(self, video: Frames, generator: np.random.Generator | None) -> list[int]:
        """Choose the frames of a clip.

        Raises:
            TooShortError: If the video is too short.
        """
        if isinstance(video, Video) and self.fps is not None:
            reach = (self.frames - 1) / self.fps / float(video.tick)
            starts = int(np.searchsorted(video.times + reach, video.end - 1e-6))
            if not starts:
                seconds = (video.end - int(video.times[0])) * float(video.tick)
                raise TooShortError(
                    f"it is too short: it lasts {seconds:.3g} s, and {self.frames} frames at "
                    f"{self.fps:g} a second need more than {(self.frames - 1) / self.fps:.3g} s",
                    seconds,
                )
            return self._shown(video, _draw(starts, generator), self.frames)
        span = (self.frames - 1) * self.stride + 1
        if len(video) < span:
            frames = "1 frame" if len(video) == 1 else f"{len(video)} frames"
            of_stride = f": {self.frames} at stride {self.stride}" if self.stride > 1 else ""
            raise TooShortError(
                f"it is too short: it has {frames}, a clip needs {span}{of_stride}", len(video)
            )
        start = _draw(len(video) - span + 1, generator)
        return list(range(start, start + span, self.stride))

    def _shown(self, video: Video, start: int, count: int) -> list[int]:
        """Find the frames that are shown at regular times from that of a first one on."""
        assert self.fps is not None, "regular times have a rate"
        since = (video.times - video.times[start]).astype(np.float64)
        times = np.arange(count) / self.fps / float(video.tick)
        # Files round times to ticks, so what was at 33.3 ms may be at 33, and at 66.7 be at 67.
        # Below 1, so that a rate of one frame a tick is exact.
        found: list[int] = (np.searchsorted(since, times + (1 - 1e-6)) - 1).tolist()
        return found


@final
class _Pictures(Frames):
    """Frames that are images of their own.

    Args:
        images: The encoded frames.
    """

    def __init__(self, images: Sequence[bytes]) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def read(
        self, numbers: Sequence[int], keep: Keep, *, channels: int, background: str
    ) -> list[Tensor]:
        return [keep(self._decode(number, channels, background)) for number in numbers]

    def each(self, *, channels: int, background: str) -> Iterator[UInt8[Tensor, "h w c"]]:
        for number in range(len(self)):
            yield self._decode(number, channels, background)

    def _decode(self, number: int, channels: int, background: str) -> UInt8[Tensor, "h w c"]:
        transform = ImageTransform(
            image_size=1,
            crop="resize",
            flip=False,
            channels=channels,
            range=None,
            background=background,
        )
        try:
            pixels = transform.decode_whole(self._images[number])
        except BadSampleError as error:
            if len(self) == 1:
                raise
            raise BadSampleError(f"frame {number} of {len(self)} {error}") from error
        return rearrange(pixels, "c h w -> h w c")


def look_at_clip(encoded: bytes) -> tuple[tuple[int, int, int], str]:
    """Tell how long a clip is: in frames, in ms and from key frame to key frame; and its coding.

    Frames that are images have no times: 0 ms.

    Raises:
        BadSampleError: If it cannot be read.
    """
    with one_line(encoded), open_frames(encoded) as frames:
        if not isinstance(frames, Video):
            return (len(frames), 0, 1), "frames"
        lasts_ms = round(1000 * (frames.end - int(frames.times[0])) * frames.tick)
        rate = ", variable rate" if frames.is_variable else ""
        return (len(frames), lasts_ms, frames.key_every), f"{frames.coding}{rate}"


def _draw(count: int, generator: np.random.Generator | None) -> int:
    return (count - 1) // 2 if generator is None else int(generator.integers(count))


def _read(
    video: Frames, numbers: Sequence[int], transform: ClipTransform
) -> list[UInt8[Tensor, "h w c"]]:
    """Read frames of one size, of which one may be shown at several of the times."""
    once = list(dict.fromkeys(numbers))
    channels, background = transform.channels, transform.background
    kept = video.read(once, OneSize(), channels=channels, background=background)
    found = dict(zip(once, kept, strict=True))
    return [found[number] for number in numbers]


def _is_image(encoded: bytes) -> bool:
    try:
        open_image(encoded)
    except UnidentifiedImageError:
        return False
    return True


@contextmanager
def open_frames(encoded: bytes) -> Iterator[Frames]:
    """Open a video, a tar of frames or a still image, of which nothing is decoded yet.

    Raises:
        BadSampleError: If the bytes are none of these.
    """
    if not encoded:
        raise BadSampleError("the file is empty")
    if encoded[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        with tarfile.open(fileobj=io.BytesIO(encoded), mode="r:") as tar:
            places = [(member.offset_data, member.size) for member in tar if member.isfile()]
        yield _Pictures([encoded[begin : begin + size] for begin, size in places])
    elif not VIDEO.begins(encoded[:12]) and _is_image(encoded):
        yield _Pictures([encoded])
    else:
        with open_video(encoded) as video:
            yield video
