"""The settings of clips."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, final

from vqtrain.data.decoding.clips import ClipTransform
from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.media import VIDEO
from vqtrain.data.settings.base import DataSettings
from vqtrain.data.settings.image import ImageSize, check_background
from vqtrain.errors import ConfigError, require
from vqtrain.ranges import FINITE, above, at_least, one_of
from vqtrain.shapes import in_px, typed


@final
@dataclass(frozen=True, kw_only=True)
class VideoData(DataSettings):
    """The keys of ``data`` for clips.

    Attributes:
        image_size: Side of the square frames that the network sees, or their height and width, in
            px.
        crop: How a frame becomes one of that size, a key of ``CROPS``; alike for a whole clip.
        flip: Whether to mirror half of the training clips left to right.
        background: The color under transparent pixels, a name or ``#rrggbb``.
        frames: Frames of a clip.
        fps: Frames a second, in time; None takes the frames of the files as they are.
        stride: Every so many of the files' frames; 1 with ``fps``.
        frames_per_loss: Frames of each clip, drawn anew each step, that losses and discriminators
            of images see; None for all.

    Raises:
        ConfigError: If a value is invalid.
    """

    media = VIDEO

    image_size: ImageSize
    crop: Annotated[str, one_of(*CROPS)]
    flip: bool
    background: str
    frames: Annotated[int, at_least(1)]
    fps: Annotated[float, above(0), FINITE] | None
    stride: Annotated[int, at_least(1)]
    frames_per_loss: Annotated[int, at_least(1)] | None

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        super().__post_init__()
        check_background(self.background)
        require(
            self.fps is None or self.stride == 1,
            f"data.stride counts frames of the files, and data.fps={self.fps} takes frames by "
            f"time: give one of them, got data.stride={self.stride}",
        )
        require(
            not self.has_images or self.sampling == "permuted",
            f"images beside clips need data.sampling=permuted, got {self.sampling}",
        )
        if self.frames_per_loss is not None and self.frames_per_loss > self.frames:
            raise ConfigError(
                f"data.frames_per_loss must be at most data.frames={self.frames}, got "
                f"{self.frames_per_loss}"
            )

    @property
    def has_images(self) -> bool:
        """Whether some of the samples to train on are images, as clips of one frame."""
        return _name_images(self.train)

    @property
    def sample_size(self) -> tuple[int, int, int]:
        """Frames of a clip, and their height and width in px."""
        return self.transform.sample_size

    @property
    def transform(self) -> ClipTransform:
        """How encoded videos become arrays."""
        return ClipTransform(
            image_size=self.image_size,
            channels=self.channels,
            crop=self.crop,
            flip=self.flip,
            range=None,
            background=self.background,
            frames=self.frames,
            fps=self.fps,
            stride=self.stride,
        )

    @property
    def context(self) -> Mapping[str, object]:
        """The frames of a clip that losses of images see."""
        return {"frames_per_loss": self.frames_per_loss}

    @property
    def size_key(self) -> str:
        """The keys of the size, with their values."""
        return f"data.frames={self.frames} data.image_size={typed(self.image_size)}"

    @property
    def size_text(self) -> str:
        """Frames, height and width, for people."""
        rate = f" at {self.fps:g} a second" if self.fps else ""
        return f"{self.frames} frames{rate} of {in_px(self.image_size)}"


def _name_images(sources: object) -> bool:
    if isinstance(sources, dict):
        return "images" in sources or any(map(_name_images, sources.values()))
    return isinstance(sources, list) and any(map(_name_images, sources))
