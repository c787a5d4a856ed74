"""The images of a probe: those that it trains on, or shards of their ids, and those held out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from vqtrain.app.parts.output import refuse_inside
from vqtrain.app.parts.sources import Named
from vqtrain.app.tokenize import hash_of
from vqtrain.data.decoding.base import Transform
from vqtrain.data.media import Media
from vqtrain.data.remote.urls import shareable
from vqtrain.data.sources.fields import find_fields
from vqtrain.data.sources.find import open_both, open_samples
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.tokens.read import read
from vqtrain.data.tokens.report import Report, read_report
from vqtrain.errors import ConfigError, require
from vqtrain.ops.paths import expand
from vqtrain.tokenizer.model import Tokenizer


@final
@dataclass(frozen=True, kw_only=True)
class ProbeImages:
    """Images that were found.

    Attributes:
        train: Those to train on; None if their ids are there already.
        val: Those to measure on.
        tokens: The folder of ids that are there already.
        num_train: Those to train on, or whose ids are there.
        num_val: Those to measure on.
        described: Where they are from, how many there are, and how they are told from others.
    """

    train: SampleIndex | None
    val: SampleIndex
    tokens: Path | None
    num_train: int
    num_val: int
    described: dict[str, object]

    @property
    def is_same(self) -> bool:
        """Whether the images to measure on are those to train on."""
        train, val = self.described["train"], self.described["val"]
        assert isinstance(train, dict), "described as a mapping"
        assert isinstance(val, dict), "described as a mapping"
        return bool(train["digest"] == val["digest"])

    @property
    def fields(self) -> Sequence[str]:
        """The fields of the first image to train on."""
        if self.train is not None:
            found = find_fields(self.train.select(np.arange(1)))
            return [found.index.key(field_id) for field_id in found.of(0)]
        assert self.tokens is not None, "ids are there where no images are"
        return [*next(read(self.tokens)).fields]


@final
@dataclass(frozen=True, kw_only=True)
class Sources:
    """What names the images; its fields are keys.

    Attributes:
        images: Those to train on.
        media: What they are of; None if they are not named.
        val: Those to measure on.
        tokens: A folder of ids, in place of ``images``.
    """

    images: Named | None
    media: Media | None
    val: Named
    tokens: str | None

    def check(self, folder: Path, names: Sequence[str]) -> None:
        """Refuse keys that do not fit each other.

        Args:
            folder: That of the results.
            names: The tokenizers.

        Raises:
            ConfigError: If they do not.
        """
        if self.tokens is not None:
            require(self.images is None, "tokens are in place of images: leave out one of the two")
            require(
                len(names) == 1,
                f"tokens={self.tokens} are of one tokenizer, got {len(names)}: give images",
            )
            require(
                self.val != "auto",
                "val=auto holds out some of images, but tokens are given: give val=IMAGES",
            )
        for source in (self.images, self.val):
            if source is not None and source != "auto":
                refuse_inside(folder, source)

    def open(self, tokenizer: Tokenizer, transform: Transform) -> ProbeImages:
        """Find the images.

        Args:
            tokenizer: That shards must be of.
            transform: How images become samples for it.

        Raises:
            ConfigError: If shards are of something else.
            DataError: If something is missing or damaged.
        """
        media = transform.media
        if self.tokens is not None:
            tokens = expand(self.tokens)
            report = read_report(tokens)
            check_tokens(report, tokenizer, transform, f"tokens={self.tokens}")
            val = open_samples(self.val, media, role="validation", key="val")
            train = None
            count = report["samples"]
            digest = report["images"]["digest"]
            described = {"source": self.tokens, "count": count, "digest": digest}
        else:
            tokens, images = None, self.images
            assert images is not None, "they are checked"
            train, val = open_both(images, self.val, media, keys=(media.key, "val"))
            described, count = describe(images, train), len(train)
        source = f"held out of {self.images}" if self.val == "auto" else self.val
        return ProbeImages(
            train=train,
            val=val,
            tokens=tokens,
            num_train=count,
            num_val=len(val),
            described={"train": described, "val": describe(source, val)},
        )


def describe(source: object, index: SampleIndex) -> dict[str, object]:
    """Say where images are from, how many there are, and how they are told from others."""
    shown = json.loads(shareable(json.dumps(source)))
    return {"source": shown, "count": len(index), "digest": index.digest}


def check_tokens(report: Report, tokenizer: Tokenizer, transform: Transform, held: str) -> None:
    """Refuse shards that are not what the tokenizer makes of images here.

    Args:
        report: Of the shards.
        tokenizer: The tokenizer, as it was loaded.
        transform: How images become samples for it.
        held: How the shards are named in messages.

    Raises:
        ConfigError: Naming the first difference.
    """
    if report["tokenizer"].get("sha256") != hash_of(tokenizer):
        raise ConfigError(f"{held} are ids of another tokenizer: tokenize images with this one")
    for key, value in transform.summary.items():
        before = report["settings"].get(key)
        if before != value:
            raise ConfigError(
                f"{held} were written with {key}={before}, not {value}: give {key}={before}, or "
                "tokenize again"
            )
    shape = list(tokenizer.token_shape(*transform.sample_size))
    if report["tokens"]["shape"] != shape:
        raise ConfigError(
            f"{held} hold ids of shape {report['tokens']['shape']}, images of this size have "
            f"{shape}"
        )
