"""The samples of an evaluation: those that are named, or those that a run was validated on."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import yaml

from vqtrain.data.media import Media, media_in
from vqtrain.data.sources.find import open_samples, training_and_validation
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import ConfigError
from vqtrain.ops.paths import expand
from vqtrain.tokenizer.model import Tokenizer

Source = str | list[str | dict[str, object]]


@final
@dataclass(frozen=True, kw_only=True)
class ChosenImages:
    """Images that are yet to be found.

    Attributes:
        source: Where they are from, for people.
        media: What they are of.
        near: Where no results may be written.
        crop: Of the run that was validated on them; None if they are of no run.
        open: Finds them; raises DataError if they are not there.
    """

    source: object
    media: Media
    near: Source
    crop: str | None
    open: Callable[[], SampleIndex]


def named_images(source: Source, media: Media) -> ChosenImages:
    """Choose the samples that a user has named."""
    return ChosenImages(
        source=source,
        media=media,
        near=source,
        crop=None,
        open=lambda: open_samples(source, media, role="validation"),
    )


def validation_images(tokenizers: Sequence[str], allow: Sequence[str]) -> ChosenImages:
    """Choose what the runs of tokenizers were validated on.

    Args:
        tokenizers: As the user named them.
        allow: Packages whose classes they may name.

    Raises:
        ConfigError: If one is no run directory, or they differ.
        CheckpointError: If one is no tokenizer.
    """
    found = [_data_of(name) for name in tokenizers]
    data = found[0]
    if data is None or None in found:
        for name, each in zip(tokenizers, found, strict=True):
            if each is None:
                Tokenizer.from_pretrained(name, allow=allow)  # says what is wrong if it is none
        raise ConfigError(
            "name the images: vqtrain evaluate tokenizer=PATH images=IMAGES; they are known of run "
            "directories alone, which have validated on some"
        )
    if any(other != data for other in found):
        raise ConfigError(
            "name the images: vqtrain evaluate tokenizer=A,B images=IMAGES; these runs have "
            "validated on different ones"
        )
    train, val, crop, media = data
    typed = " ".join(
        f"data.{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in (("train", train), ("val", val))
    )
    return ChosenImages(
        source=f"validation {media.noun}s of {typed}",
        media=media,
        near=train,
        crop=crop,
        open=lambda: training_and_validation(train, val, media)[1],
    )


def _data_of(name: str) -> tuple[Source, Source, str | None, Media] | None:
    try:
        text = (expand(name) / "config.yaml").read_text(encoding="utf-8")
        data = yaml.safe_load(text)["data"]
        media = media_in(data)
        return data["train"], data["val"], data.get("crop"), media
    except (OSError, ConfigError, yaml.YAMLError, KeyError, TypeError):
        return None
