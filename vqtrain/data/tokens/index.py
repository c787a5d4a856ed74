"""The index.json of a folder of tokens: what it says, and whether it speaks of the same tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

from vqtrain.data.packing.index import check_settings, read_json
from vqtrain.errors import ConfigError, DataError

INDEX = "index.json"
FORMAT, VERSION = "vqtrain-tokens", 1
# The folder inside of what is not whole yet, and what was begun there.
UNFINISHED = ".tokenize"
PLAN = "plan.json"
LAYOUTS = ("webdataset", "flat")


class Form(TypedDict):
    """The ids of one image: their shape, the type that holds them, and how many ids there are."""

    shape: list[int]
    dtype: str
    size: int


class Identity(TypedDict):
    """What tokens are made from: equal ones give equal bytes on equal hardware."""

    format: str
    version: int
    tokenizer: dict[str, object]
    tokens: Form
    settings: dict[str, object]
    images: dict[str, int | str]


class FileEntry(TypedDict):
    """A file of tokens as index.json lists it."""

    name: str
    samples: int
    bytes: int
    sha256: str


class Report(Identity):
    """The content of index.json, whose presence says that all is there."""

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
                f"{folder} is not complete: give the same vqtrain tokenize again, which goes on"
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


def check_same(out: Path, begun: Identity, identity: Identity) -> None:
    """Refuse to continue tokens of another tokenizer, other images or other settings.

    Raises:
        ConfigError: Naming what differs.
    """
    what = f"out={out} holds tokens"
    if begun["version"] != VERSION:
        raise ConfigError(f"{what} of version {begun['version']}, and this is version {VERSION}")
    if (
        begun["tokenizer"] != identity["tokenizer"]
        or begun["tokens"]["size"] != (identity["tokens"]["size"])
    ):
        raise ConfigError(f"{what} of another tokenizer: give that tokenizer, or another out")
    check_settings(what, begun["settings"], identity["settings"])
    count, now = begun["images"]["count"], identity["images"]["count"]
    if count != now:
        raise ConfigError(f"{what} of {count} images, now there are {now}: give another out")
    if begun["images"] != identity["images"]:
        raise ConfigError(
            f"{what} of other images, or of some that have changed: their names, sizes or order "
            "differ; give another out"
        )


def check_files(out: Path, files: Sequence[FileEntry]) -> None:
    """Refuse a complete folder that lacks something.

    Raises:
        DataError: If a file is missing or has another length.
    """
    for entry in files:
        file = out / entry["name"]
        if not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise DataError(
                f"{file} is missing or has changed since it was written: delete {out}, and make it "
                "anew"
            )
