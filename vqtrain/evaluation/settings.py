"""How images are read, and on what a trained tokenizer is computed."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, final

import torch

from vqtrain.build import unknown
from vqtrain.data.decoding.base import Transform
from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.settings.image import ImageSize
from vqtrain.errors import ConfigError
from vqtrain.ops.cores import count_cores
from vqtrain.ops.memory import keep_freed_memory
from vqtrain.ops.precision import AUTOCAST, TRAINED_PRECISIONS
from vqtrain.ranges import at_least, check_fields, one_of
from vqtrain.shapes import sides
from vqtrain.tokenizer.model import Tokenizer


@final
@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """What a user sets for a tokenizer that reads images; commands take the fields as keys.

    Raises:
        ConfigError: If a value is impossible.
    """

    image_size: ImageSize | None
    crop: Annotated[str, one_of(*CROPS)]
    batch_size: Annotated[int, at_least(1)]
    num_workers: Annotated[int, at_least(0)] | None
    device: str
    precision: Annotated[str, one_of(*TRAINED_PRECISIONS)]

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "")
        find_device(self.device)

    @property
    def workers(self) -> int:
        """Processes that load images."""
        return count_cores() if self.num_workers is None else self.num_workers

    def transform(self, tokenizer: Tokenizer) -> Transform:
        """How images become what the tokenizer takes.

        Raises:
            ConfigError: If no size is known, or it does not fit the tokenizer.
        """
        size = self.image_size or tokenizer.training_summary.get("image_size")
        if not isinstance(size, int | list):
            raise ConfigError(
                "the tokenizer does not say on which size it was trained: give image_size, a "
                f"multiple of {math.lcm(*tokenizer.unit)}"
            )
        tokenizer.token_shape(*sides(size))  # refuses a size that does not fit
        return ImageTransform(
            image_size=size,
            channels=tokenizer.channels,
            crop=self.crop,
            flip=False,
            range=tokenizer.pixel_range,
            background="white",
        )

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
