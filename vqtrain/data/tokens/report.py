"""The index.json of a folder of tokens or of latents, which is not trusted."""

from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired, TypedDict, cast

from vqtrain.data.shards.folder import INDEX, read_json
from vqtrain.data.shards.writer import FileEntry
from vqtrain.errors import DataError

FORMAT, VERSION = "vqtrain-tokens", 1
# The inner folder for incomplete files.
UNFINISHED = ".tokenize"
LAYOUTS = ("webdataset", "flat")
# What a folder may hold, with the types of the arrays.
TYPES = {
    "tokens": ("uint8", "uint16", "uint32", "uint64"),
    "latents": ("float16",),
}


class Form(TypedDict):
    """The ids of one image: their shape, None if it differs, dtype and number of possible ids.

    Latents have no ``size``, and the shape [h, w, c].
    """

    shape: list[int] | None
    dtype: str
    size: NotRequired[int]


class Statistics(TypedDict):
    """What latents are like: by channel their mean and standard deviation; and both ends of all."""

    mean: list[float]
    std: list[float]
    min: float
    max: float


class Report(TypedDict):
    """The content of index.json, which exists only in a complete folder.

    It has ``tokens``, or ``latents`` with their ``statistics``.
    """

    format: str
    version: int
    tokenizer: dict[str, object]
    tokens: NotRequired[Form]
    latents: NotRequired[Form]
    statistics: NotRequired[Statistics]
    settings: dict[str, object]
    images: dict[str, int | str]
    samples: int
    bytes: int
    files: list[FileEntry]
    skipped: list[dict[str, str]]


def read_report(folder: Path, *, kind: str = "tokens") -> Report:
    """Read the index.json of a folder of tokens, or of another kind.

    Args:
        folder: The ``out`` of the command.
        kind: A key of ``TYPES``.

    Raises:
        DataError: If there is none, this version cannot read it, or it is of another kind.
    """
    if not (folder / INDEX).is_file():
        if (folder / UNFINISHED).is_dir():
            raise DataError(
                f"{folder} is incomplete: run the same vqtrain tokenize again to continue"
            )
        raise DataError(f"{folder} holds no {kind}: it has no {INDEX}")
    found = read_json(folder / INDEX)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{folder / INDEX} is not of vqtrain tokenize")
    if found.get("version") != VERSION:
        raise DataError(
            f"{folder} holds tokens of version {found.get('version')!r}, this vqtrain reads "
            f"{VERSION}"
        )
    for other in TYPES:
        if other != kind and other in found:
            raise DataError(f"{folder} holds {other}, and {kind} are wanted here")
    _check(folder, found, kind)
    return cast(Report, found)


def _check(folder: Path, found: Mapping[str, object], kind: str) -> None:
    """Refuse an invalid index, or one that names files outside of its folder."""
    form, files = found.get(kind), found.get("files")
    is_form = (
        isinstance(form, dict)
        and isinstance(form.get("shape", ""), list | None)
        and form.get("dtype") in TYPES[kind]
    )
    if not is_form or not isinstance(files, list):
        raise DataError(f"{folder / INDEX} is damaged: it lacks {kind} or files")
    for entry in files:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name != Path(name).name or name in ("", ".", ".."):
            raise DataError(f"{folder / INDEX} names a file outside of its folder: {name!r}")
