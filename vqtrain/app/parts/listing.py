"""The list of a leaderboard: a YAML file with tokenizers, and the protocol that all share."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, final

import yaml

from vqtrain.build import bind, unknown
from vqtrain.data.settings.image import ImageSize
from vqtrain.errors import ConfigError, require
from vqtrain.metrics.parts.build import Entry
from vqtrain.ranges import at_least, within
from vqtrain.sweeps.commands import in_grammar, one_path, source_word

KEYS = ("title", "protocol", "tokenizers")
MOST_PICTURES = 64
# Text that Hydra's grammar reads as such without quotes.
BARE = re.compile(r"(?!(?:null|true|false|nan|inf)$)[A-Za-z_]\w*", re.IGNORECASE)


@final
@dataclass(frozen=True, kw_only=True)
class ListedTokenizer:
    """A tokenizer of the list.

    Attributes:
        path: As in the other commands; with ``kind`` that of a checkpoint to convert.
        name: Its name in the table; None for the path.
        note: A remark for the table.
        kind: That of the checkpoint, as in ``vqtrain convert``; None of a tokenizer of vqtrain.
        num_tokens: How many tokens are decoded; None for all.
        options: Further keys of ``vqtrain convert``.
    """

    path: str
    name: str | None = None
    note: str = ""
    kind: str | None = None
    num_tokens: Annotated[int, at_least(1)] | None = None
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """Its name, or what tells it apart."""
        count = "" if self.num_tokens is None else f" ({self.num_tokens} tokens)"
        return self.name or f"{self.path}{count}"

    @property
    def convert_words(self) -> list[str]:
        """The words of ``vqtrain convert``, but for ``out``; none of a tokenizer of vqtrain."""
        if self.kind is None:
            return []
        options = [f"{key}={typed(value)}" for key, value in self.options.items()]
        return ["convert", f"kind={self.kind}", f"path={self.path}", *options]

    def evaluate_words(self, path: str | Path) -> list[str]:
        """The words of ``vqtrain evaluate`` that are its own, where it lies at a path."""
        count = [] if self.num_tokens is None else [f"num_tokens={self.num_tokens}"]
        return ["evaluate", f"tokenizer={one_path(path)}", *count]


@final
@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all tokenizers are measured with: keys of ``vqtrain evaluate``.

    Attributes:
        images: The images.
        image_size: Side of a square in px, or height and width.
        metrics: Their names, or a word as in ``vqtrain evaluate``.
        pictures: How many of the images are shown, from the first one on.
        options: Further keys.
    """

    images: str | list[str | dict[str, object]]
    image_size: ImageSize
    metrics: str | list[Entry] = "basic"
    pictures: Annotated[int, within(0, MOST_PICTURES)] = 8
    crop: str | None = None
    precision: str | None = None
    protocol: str | None = None
    baselines: bool | None = None
    cost: bool | None = None
    max_bad_fraction: float | None = None
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The words of ``vqtrain evaluate``, without what is left to its defaults."""
        given = {
            "image_size": self.image_size,
            "metrics": self.metrics,
            "crop": self.crop,
            "precision": self.precision,
            "protocol": self.protocol,
            "baselines": self.baselines,
            "cost": self.cost,
            "max_bad_fraction": self.max_bad_fraction,
        }
        return [
            f"images={source_word(self.images)}",
            *(f"{key}={typed(value)}" for key, value in given.items() if value is not None),
            *(f"weights.{name}={path}" for name, path in self.weights.items()),
        ]


@final
@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the file says."""

    title: str
    protocol: Protocol
    tokenizers: list[ListedTokenizer]


def typed(value: object) -> str:
    """Write a value as one types it.

    Example:
        >>> typed(["psnr", {"kind": "fid"}]), typed("1e5"), typed([256, 384])
        ('[psnr,{kind:fid}]', '"1e5"', '[256,384]')
    """
    if isinstance(value, str) and BARE.fullmatch(value):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(typed, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{typed(each)}' for key, each in value.items())}}}"
    return in_grammar(value)


def read_listing(file: Path) -> Listing:
    """Read the list.

    Raises:
        ConfigError: If it cannot be read, or a key or a value is wrong.
    """
    known = read_yaml(file)
    for key in known:
        require(key in KEYS, f"{file}: {unknown('key', str(key), KEYS)}")
    title, protocol, listed = (known.get(key) for key in KEYS)
    require(title is None or isinstance(title, str), f"{file}: title must be a text, got {title!r}")
    if not isinstance(protocol, Mapping) or not {"images", "image_size"} <= protocol.keys():
        raise ConfigError(
            f"{file}: protocol must have images and image_size, such as protocol: "
            "{images: demo, image_size: 256}"
        )
    if not isinstance(listed, list) or not listed:
        raise ConfigError(
            f"{file}: tokenizers must be a list of paths, or of mappings such as "
            "{path: runs/a/latest, name: A}"
        )
    found = [read_item(item, f"{file}: tokenizers[{place}]") for place, item in enumerate(listed)]
    names = [each.shown for each in found]
    for name in names:
        require(
            names.count(name) == 1,
            f"{file}: {name} is named twice: remove one, or give each a name",
        )
    return Listing(
        title=title or file.stem,
        protocol=bind(Protocol, dict(protocol), where=f"{file}: protocol"),
        tokenizers=found,
    )


def read_yaml(file: Path) -> Mapping[Any, Any]:
    """Read a YAML file that is a mapping.

    Raises:
        ConfigError: If it is none.
    """
    try:
        known = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(known, Mapping):
        raise ConfigError(
            f"{file} must be a mapping with the key tokenizers, "
            f"got {json.dumps(known, default=str)}"
        )
    return known


def read_item(item: object, where: str) -> ListedTokenizer:
    """Read a tokenizer of the list: a path alone, or a mapping.

    Raises:
        ConfigError: If it is neither, or a key or a value is wrong.
    """
    if isinstance(item, str):
        item = {"path": item}
    if not isinstance(item, Mapping):
        raise ConfigError(f"{where} must be a path, or a mapping with one, got {json.dumps(item)}")
    own = {key: value for key, value in item.items() if key in ListedTokenizer.__annotations__}
    rest = {str(key): value for key, value in item.items() if key not in own}
    names = [name for name in ListedTokenizer.__annotations__ if name != "options"]
    for key in rest:
        require("kind" in own, f"{where}: {unknown('key', key, names)}")
    require("options" not in own, f"{where}: write the keys of convert beside kind")
    return bind(ListedTokenizer, {**own, "options": rest}, where=where)
