"""The index.json of a folder of tokens, read with care."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from vqtrain.data.shards.folder import INDEX, read_json
from vqtrain.data.shards.writer import FileEntry
from vqtrain.errors import DataError

FORMAT, VERSION = "vqtrain-tokens", 1
# The folder inside of what is not whole yet.
UNFINISHED = ".tokenize"
LAYOUTS = ("webdataset", "flat")


class Form(TypedDict):
    """The ids of one image: their shape, the type that holds them, and how many ids there are."""

    shape: list[int]
    dtype: str
    size: int


class Report(TypedDict):
    """The content of index.json, whose presence says that all is there."""

    format: str
    version: int
    tokenizer: dict[str, object]
    tokens: Form
    settings: dict[str, object]
    images: dict[str, int | str]
    samples: int
    bytes: int
    files: list[FileEntry]
    skipped: list[dict[str, str]]


def read_report(folder: Path) -> Report:
    """Read the index.json of a folder of tokens.

    Raises:
        DataError: If there is none, or it is not one of tokens that this version knows.
    """
    if not (folder / INDEX).is_file():
        if (folder / UNFINISHED).is_dir():
            raise DataError(
                f"{folder} is not complete: give the same vqtrain tokenize again, which continues"
            )
        raise DataError(f"{folder} holds no tokens: it has no {INDEX}")
    found = read_json(folder / INDEX)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{folder / INDEX} is not of vqtrain tokenize")
    if found.get("version") != VERSION:
        raise DataError(
            f"{folder} holds tokens of version {found.get('version')!r}, this vqtrain reads "
            f"{VERSION}"
        )
    _check(folder, found)
    return cast(Report, found)


def _check(folder: Path, found: Mapping[str, object]) -> None:
    """Refuse an index that no version wrote, or that names files elsewhere."""
    form, files = found.get("tokens"), found.get("files")
    is_form = (
        isinstance(form, dict)
        and isinstance(form.get("shape"), list)
        and form.get("dtype") in ("uint8", "uint16", "uint32", "uint64")
    )
    if not is_form or not isinstance(files, list):
        raise DataError(f"{folder / INDEX} is damaged: it lacks tokens or files")
    for entry in files:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name != Path(name).name or name in ("", ".", ".."):
            raise DataError(f"{folder / INDEX} names a file outside of its folder: {name!r}")
