"""Reading tokens one sample at a time, from files that are not trusted."""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import file_digest
from itertools import groupby
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt

from vqtrain.data.shards.folder import check_files
from vqtrain.data.shards.writer import FileEntry
from vqtrain.data.tokens.batches import IDS_FIELD
from vqtrain.data.tokens.report import Form, Report, read_report
from vqtrain.errors import DataError
from vqtrain.ops.paths import expand

ARRAY, SAMPLES = "tokens.npy", "samples.jsonl"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class TokenSample:
    """One image as ids.

    Attributes:
        key: Its name: relative and without ``..``, but not meant as a path.
        token_ids: As ``Tokenizer.encode`` gives them for one image, in the type of the file.
        fields: The other fields of the sample, by name: ``txt``, ``cls``, ``json``.
    """

    key: str
    token_ids: UInt[np.ndarray, "*tokens"]
    fields: Mapping[str, bytes]


def read(folder: str | Path, *, verify: bool = False) -> Iterator[TokenSample]:
    """Read the output of ``vqtrain tokenize``, in the order of the images, in either layout.

    Nothing is unpickled and nothing is written.

    Args:
        folder: The ``out`` of the command.
        verify: Whether to compare each file with its sha256 before it is read.

    Raises:
        DataError: If the folder is incomplete, or a file does not match the index.
    """
    folder = expand(folder)
    report = read_report(folder)
    check_files(folder, report["files"])
    if verify:
        for entry in report["files"]:
            check_sha256(folder, entry)
    if report["settings"].get("layout") == "flat":
        yield from _read_flat(folder, report)
        return
    for entry in report["files"]:
        yield from read_tar(folder / entry["name"], report["tokens"])


def check_sha256(folder: Path, entry: FileEntry) -> None:
    """Compare a file with its entry.

    Raises:
        DataError: If it has another hash.
    """
    if sha256_of(folder / entry["name"]) != entry["sha256"]:
        raise DataError(
            f"{folder / entry['name']} has changed since it was written: its sha256 is another one"
        )


def sha256_of(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def read_tar(path: Path, form: Form) -> Iterator[TokenSample]:
    """Read the samples of a shard, one at a time.

    Raises:
        DataError: If it is damaged, or holds a sample that is not of that form.
    """
    total = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for key, group in groupby(_members(tar), key=lambda member: _split(member.name)[0]):
                fields = {}
                for member in group:
                    # The claimed size is not allocated before it is compared with the file's.
                    if member.offset_data + member.size > total:
                        raise DataError(f"{path} ends inside {member.name!r}")
                    content = tar.extractfile(member)
                    assert content is not None, "it is a file"
                    fields[_split(member.name)[1]] = content.read()
                if _is_unsafe(key) or IDS_FIELD not in fields:
                    raise DataError(f"{path} holds {key!r}, which is no sample of tokens")
                where = f"{key!r} in {path}"
                yield TokenSample(
                    key=key,
                    token_ids=from_npy(fields.pop(IDS_FIELD), form, where),
                    fields=fields,
                )
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # not declared; it would hold every header
        if not member.isfile():
            raise DataError(f"{tar.name!s} holds {member.name!r}, which is no file")
        yield member


def _split(name: str) -> tuple[str, str]:
    folder, slash, last = name.rpartition("/")
    key, _, field = last.partition(".")
    return f"{folder}{slash}{key}", field


def _is_unsafe(key: str) -> bool:
    return any(part in ("", ".", "..") for part in re.split(r"[/\\]", key))


def from_npy(content: bytes, form: Form, where: str) -> UInt[np.ndarray, "*tokens"]:
    """Read ids of the given form.

    Raises:
        DataError: If they have another form.
    """
    file, dtype = io.BytesIO(content), np.dtype(form["dtype"])
    try:
        np.lib.format.read_magic(file)
        found = np.lib.format.read_array_header_1_0(file)
    except ValueError as error:
        raise DataError(f"the ids of {where} cannot be read: {error}") from error
    rest = len(content) - file.tell()
    shape = found[0] if form["shape"] is None else tuple(form["shape"])
    if found != (shape, False, dtype) or rest != dtype.itemsize * int(np.prod(shape)):
        raise DataError(
            f"the ids of {where} are not {dtype} {list(shape)}: the shard is damaged, or not of "
            "this folder"
        )
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape)


def _read_flat(folder: Path, report: Report) -> Iterator[TokenSample]:
    try:
        array = np.load(folder / ARRAY, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder / ARRAY}: {error}") from error
    form = report["tokens"]
    shape = (report["samples"], *(form["shape"] or []))
    if array.dtype != np.dtype(form["dtype"]) or array.shape != shape:
        raise DataError(f"{folder / ARRAY} is {array.dtype} {list(array.shape)}, not as its index")
    with (folder / SAMPLES).open(encoding="utf-8") as lines:
        for row, line in zip(array, lines, strict=True):
            sample = json.loads(line)
            fields = {name: text.encode() for name, text in sample["fields"].items()}
            yield TokenSample(key=sample["key"], token_ids=np.array(row), fields=fields)
