"""All tokens as one array that numpy can memory-map, and a line for each image."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from vqtrain.data.shards.writer import FileEntry
from vqtrain.data.tokens.read import ARRAY, SAMPLES, TokenSample, read_tar, sha256_of
from vqtrain.data.tokens.report import Form


def flatten(
    shards: Sequence[FileEntry], form: Form, *, folder: Path, state: Path, out: Path
) -> list[FileEntry]:
    """Write ``tokens.npy`` and ``samples.jsonl``, in the order of the shards.

    A kill costs only this work: the shards stay where they are.

    Args:
        shards: All shards.
        form: Of the ids of one image.
        folder: Where the shards are.
        state: Folder of incomplete files.
        out: The target folder.

    Raises:
        DataError: If a shard cannot be read.
    """
    samples = sum(entry["samples"] for entry in shards)
    header = {
        "descr": np.dtype(form["dtype"]).str,
        "fortran_order": False,
        "shape": (samples, *(form["shape"] or [])),
    }
    with (state / ARRAY).open("wb") as array, (state / SAMPLES).open("wb") as lines:
        np.lib.format.write_array_header_1_0(array, header)
        for entry in shards:
            for sample in read_tar(folder / entry["name"], form):
                array.write(sample.token_ids.tobytes())
                lines.write(_describe(sample))
        for file in (array, lines):
            file.flush()
            os.fsync(file.fileno())
    entries = [
        FileEntry(
            name=name,
            samples=samples,
            bytes=(state / name).stat().st_size,
            sha256=sha256_of(state / name),
        )
        for name in (ARRAY, SAMPLES)
    ]
    for entry in entries:
        (state / entry["name"]).replace(out / entry["name"])
    return entries


def _describe(sample: TokenSample) -> bytes:
    """Write the key and the fields that are text."""
    texts = {}
    for name, content in sample.fields.items():
        with suppress(UnicodeDecodeError):
            texts[name] = content.decode()
    return f"{json.dumps({'key': sample.key, 'fields': texts})}\n".encode()
