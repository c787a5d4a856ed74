"""The index.json of a folder of tokens, which is not trusted."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from vqtrain.data.shards.folder import INDEX, read_json
from vqtrain.data.shards.writer import FileEntry
from vqtrain.errors import DataError

FORMAT, VERSION = "vqtrain-tokens", 1
# The inner folder for incomplete files.
UNFINISHED = ".tokenize"
LAYOUTS = ("webdataset", "flat")


class Form(TypedDict):
    """The ids of one image: their shape, None if it differs, dtype and number of possible ids."""

    shape: list[int] | None
    dtype: str
    size: int


class Report(TypedDict):
    """The content of index.json, which exists only in a complete folder."""

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
        DataError: If there is none, or this version cannot read it.
    """
    if not (folder / INDEX).is_file():
        if (folder / UNFINISHED).is_dir():
            raise DataError(
                f"{folder} is incomplete: run the same vqtrain tokenize again to continue"
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
    """Refuse an invalid index, or one that names files outside of its folder."""
    form, files = found.get("tokens"), found.get("files")
    is_form = (
        isinstance(form, dict)
        and isinstance(form.get("shape", ""), list | None)
        and form.get("dtype") in ("uint8", "uint16", "uint32", "uint64")
    )
    if not is_form or not isinstance(files, list):
        raise DataError(f"{folder / INDEX} is damaged: it lacks tokens or files")
    for entry in files:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name != Path(name).name or name in ("", ".", ".."):
            raise DataError(f"{folder / INDEX} names a file outside of its folder: {name!r}")
