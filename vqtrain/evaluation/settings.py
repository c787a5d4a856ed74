"""How samples are read, and on what a trained tokenizer is computed."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, final

import torch

from vqtrain.build import unknown
from vqtrain.data.decoding.base import Transform
from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.media import SOUND, VIDEO, media_of
from vqtrain.data.settings.image import ImageSize
from vqtrain.errors import ConfigError, require
from vqtrain.ops.cores import count_cores
from vqtrain.ops.memory import keep_freed_memory
from vqtrain.ops.precision import AUTOCAST, TRAINED_PRECISIONS
from vqtrain.ranges import at_least, check_fields, one_of
from vqtrain.tokenizer.model import Tokenizer


@final
@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """What a user sets for a tokenizer that reads samples; commands take the fields as keys.

    Raises:
        ConfigError: If a value is impossible.
    """

    image_size: ImageSize | None
    crop: Annotated[str, one_of(*CROPS)]
    batch_size: Annotated[int, at_least(1)]
    num_workers: Annotated[int, at_least(0)] | None
    device: str
    precision: Annotated[str, one_of(*TRAINED_PRECISIONS)]
    frames: Annotated[int, at_least(1)] | None = None
    length: Annotated[int, at_least(1)] | None = None

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "")
        find_device(self.device)

    @property
    def workers(self) -> int:
        """Processes that load images."""
        return count_cores() if self.num_workers is None else self.num_workers

    def transform(self, tokenizer: Tokenizer) -> Transform:
        """How samples become what the tokenizer takes.

        Raises:
            ConfigError: If no size is known, or it does not fit the tokenizer.
        """
        media, known = media_of(len(tokenizer.downsampling)), tokenizer.training_summary
        if media is not VIDEO:
            require(self.frames is None, f"frames are of clips: tokenizer takes {media.noun}s")
        if media is SOUND:
            transform: Transform = self._sound(tokenizer, known)
        else:
            require(self.length is None, f"length is of sounds: tokenizer takes {media.noun}s")
            image_size = self.image_size or known.get("image_size")
            if not isinstance(image_size, int | list):
                raise ConfigError(
                    "the tokenizer does not say on which size it was trained: give image_size, a "
                    f"multiple of {math.lcm(*tokenizer.unit[-2:])}"
                )
            if media is VIDEO:
                transform = self._clip(tokenizer, known, image_size)
            else:
                transform = ImageTransform(
                    image_size=image_size,
                    channels=tokenizer.channels,
                    crop=self.crop,
                    flip=False,
                    range=tokenizer.pixel_range,
                    background="white",
                )
        tokenizer.token_shape(*transform.sample_size)  # refuses a size that does not fit
        return transform

    def _clip(
        self, tokenizer: Tokenizer, known: Mapping[str, object], image_size: int | list[int]
    ) -> Transform:
        from vqtrain.data.decoding.clips import ClipTransform  # not needed for images

        frames, fps = self.frames or known.get("frames"), known.get("fps")
        if not isinstance(frames, int):
            raise ConfigError(
                "the tokenizer does not say on how many frames it was trained: give frames"
            )
        return ClipTransform(
            image_size=image_size,
            channels=tokenizer.channels,
            crop=self.crop,
            flip=False,
            range=tokenizer.pixel_range,
            background="white",
            frames=frames,
            fps=float(fps) if isinstance(fps, int | float) else None,
            stride=int(str(known.get("stride", 1))),
        )

    def _sound(self, tokenizer: Tokenizer, known: Mapping[str, object]) -> Transform:
        from vqtrain.data.decoding.sounds import SoundTransform  # not needed for images

        require(self.image_size is None, "image_size is of images: tokenizer takes sounds")
        length, rate = self.length or known.get("length"), known.get("sample_rate")
        if not isinstance(length, int) or not isinstance(rate, int):
            missing = "length" if isinstance(rate, int) else "training.sample_rate in config.json"
            raise ConfigError(
                f"the tokenizer does not say on which sounds it was trained: give {missing}"
            )
        return SoundTransform(sample_rate=rate, channels=tokenizer.channels, length=length)

    def placed(self, tokenizer: Tokenizer) -> Tokenizer:
        """Put a tokenizer on the device, in the precision; its codebook is never narrowed."""
        device = find_device(self.device)
        if device.type == "cpu":
            keep_freed_memory()
        dtype = torch.float64 if self.precision == "64-true" else torch.float32
        placed = tokenizer.to(device=device, dtype=dtype)
        if self.precision == "bf16-true":
            outside = (placed.encoder, placed.project_in, placed.project_out, placed.decoder)
            for network in outside:
                network.bfloat16()
        return placed

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context of a forward pass."""
        kind, dtype = find_device(self.device).type, AUTOCAST.get(self.precision)
        return torch.autocast(kind, dtype, enabled=dtype is not None)


def find_device(word: str) -> torch.device:
    """Find the device that a word names; ``auto`` is a GPU where torch finds one.

    Raises:
        ConfigError: If it is not here.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available()}
    there["mps"] = torch.backends.mps.is_available()
    if word == "auto":
        word = next(kind for kind in ("cuda", "mps", "cpu") if there[kind])
    kind, _, number = word.partition(":")
    if kind not in there:
        raise ConfigError(unknown("device", word, ["auto", *there]))
    if not there[kind]:
        raise ConfigError(f"device is {word}, but torch finds none here: try cpu")
    if number and (not number.isdecimal() or int(number) >= torch.cuda.device_count()):
        raise ConfigError(f"device is {word}, but there are {torch.cuda.device_count()} GPUs")
    return torch.device(word)
