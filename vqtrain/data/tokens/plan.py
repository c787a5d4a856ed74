"""The plan of a folder of tokens: batches and shards, a function of images and settings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, final

import numpy as np

from vqtrain.data.decoding.base import Transform
from vqtrain.data.shards.folder import Identity, Share
from vqtrain.data.shards.keys import unique_keys
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.tokens.report import FORMAT, LAYOUTS, UNFINISHED, VERSION, Form
from vqtrain.errors import require
from vqtrain.ranges import at_least, check_fields, one_of


@final
@dataclass(frozen=True, kw_only=True)
class TokenSettings:
    """The settings that decide the tokens, besides images and tokenizer.

    Attributes:
        transform: How images become arrays.
        batch_size: Images per batch.
        precision: The precision.
        device: The kind of device, because devices round differently.
        shard_size: Images per shard.
        layout: ``webdataset`` or ``flat``.
        any_size: How samples of any size are encoded, by key; None for samples of one size.

    Raises:
        ConfigError: If a value is invalid.
    """

    transform: Transform
    batch_size: int
    precision: str
    device: str
    shard_size: Annotated[int, at_least(1)]
    layout: Annotated[str, one_of(*LAYOUTS)]
    any_size: dict[str, object] | None = None

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_fields(self, "")
        require(
            self.any_size is None or (self.batch_size == 1 and self.layout == "webdataset"),
            "ids of samples of any size differ in shape: they need batch_size=1 and "
            "layout=webdataset",
        )

    def described(self) -> dict[str, object]:
        """Write the keys as a user types them."""
        return {
            **self.transform.summary,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "device": self.device,
            "shard_size": self.shard_size,
            "layout": self.layout,
            **(self.any_size or {}),
        }


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Where each sample goes.

    Attributes:
        images: All images, in the order of their sources.
        keys: Name of each sample, unique, as WebDataset reads it.
        settings: What the user set.
        identity: What the tokens are built from.
        kind: What is written: a key of ``vqtrain.data.tokens.report.TYPES``.
    """

    images: SampleIndex
    keys: Sequence[str]
    settings: TokenSettings
    identity: Identity
    kind: str = "tokens"

    @property
    def form(self) -> Form:
        """The form of the ids or the latents of one image."""
        form: Form = self.identity[self.kind]
        return form

    def shards(self, share: Share) -> range:
        """Return the numbers of the shards of a process."""
        return range(share.number, math.ceil(len(self.images) / self.settings.shard_size), share.of)

    def batches(self, shard: int) -> list[range]:
        """Return the positions of each batch of a shard."""
        size, step = self.settings.shard_size, self.settings.batch_size
        end = min((shard + 1) * size, len(self.images))
        return [range(i, min(i + step, end)) for i in range(shard * size, end, step)]

    def shard_folder(self, out: Path) -> Path:
        """Return the folder of complete shards; ``flat`` joins them at the end."""
        return out if self.settings.layout == "webdataset" else out / UNFINISHED / "whole"


def shard_name(shard: int) -> str:
    """Name a shard."""
    return f"shard-{shard:05d}"


def make_plan(
    images: SampleIndex,
    *,
    settings: TokenSettings,
    tokenizer: Mapping[str, object],
    shape: Sequence[int] | None,
    size: int | None,
) -> Plan:
    """Decide on names and types.

    Args:
        images: The images to encode.
        settings: The settings.
        tokenizer: What identifies the tokenizer, as plain data.
        shape: Of the ids of one image; None if it differs from image to image.
        size: Number of ids; the smallest unsigned type that holds them is written. None for
            latents, which are written in float16.

    Raises:
        ConfigError: If images have weights.
    """
    form = Form(shape=None if shape is None else list(shape), dtype="float16")
    if size is not None:
        form = {**form, "dtype": np.min_scalar_type(size - 1).name, "size": size}
    kind = "latents" if size is None else "tokens"
    require(
        bool((images.weights == 1).all()),
        "images have weights, which tokens do not store: use the weights where tokens are read",
    )
    return Plan(
        images=images,
        keys=unique_keys([images.key(image_id) for image_id in range(len(images))]),
        settings=settings,
        identity={
            "format": FORMAT,
            "version": VERSION,
            "tokenizer": dict(tokenizer),
            kind: form,
            "settings": settings.described(),
            "images": {"count": len(images), "digest": images.digest},
        },
        kind=kind,
    )
