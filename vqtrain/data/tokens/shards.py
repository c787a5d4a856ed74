"""One shard of tokens: written batch by batch with a journal, from which a killed run goes on."""

import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TypedDict, final

import numpy as np
from jaxtyping import UInt

from vqtrain.data.cache import write_whole
from vqtrain.data.faults import Fault
from vqtrain.data.packing.pictures import Sample
from vqtrain.data.packing.shards import END_BYTES, tar_pieces
from vqtrain.data.tokens.index import PLAN, FileEntry

# Name of each field of a sample and its bytes.
Members = tuple[tuple[str, bytes], ...]


class Note(TypedDict):
    """A line of the journal: what is in the shard after a batch, and what the batch left out."""

    batches: int
    samples: int
    bytes: int
    sha256: str
    skipped: list[dict[str, str]]


class WholeShard(TypedDict):
    """What is known of a whole shard until all are."""

    shard: FileEntry
    skipped: list[dict[str, str]]


@final
class ShardWriter:
    """Writes a shard, or goes on where its journal ends.

    What a kill left behind the last line of the journal that agrees with the shard is cut off.

    Args:
        state: Folder of what is not whole yet.
        name: The shard, such as ``shard-00000``.

    Attributes:
        batches: How many are in it.
        samples: Likewise.
        skipped: What was left out so far.
    """

    def __init__(self, *, state: Path, name: str) -> None:
        self._state, self._name = state, name
        self._tar = (state / f"{name}.tar").open("a+b")
        self._journal = journal(state, name).open("a+b")
        self._hash = sha256()
        self._bytes = 0
        self.batches = self.samples = 0
        self.skipped: list[dict[str, str]] = []
        self._go_on()

    def add(self, samples: Sequence[tuple[str, Members]], faults: Sequence[Fault]) -> None:
        """Write a batch: key and fields of each sample, and what is wrong with those left out."""
        for key, members in samples:
            sample = Sample(members=members, width=0, height=0, mode="", digest="")
            self._write(b"".join(tar_pieces(key, sample)))
        self._tar.flush()
        self.batches += 1
        self.samples += len(samples)
        skipped = [asdict(fault) for fault in faults]
        self.skipped += skipped
        note = Note(
            batches=self.batches,
            samples=self.samples,
            bytes=self._bytes,
            sha256=self._hash.hexdigest(),
            skipped=skipped,
        )
        self._journal.write(f"{json.dumps(note)}\n".encode())
        self._journal.flush()

    def finish(self, folder: Path) -> WholeShard:
        """Bring the shard to the disk and move it into a folder; from then on it is kept."""
        self._write(b"\0" * END_BYTES)
        self._tar.flush()
        os.fsync(self._tar.fileno())
        self.close()
        entry = FileEntry(
            name=f"{self._name}.tar",
            samples=self.samples,
            bytes=self._bytes,
            sha256=self._hash.hexdigest(),
        )
        whole = WholeShard(shard=entry, skipped=self.skipped)
        # Before it is moved, so that no kill can leave a shard of which nothing is known.
        write_whole(self._state / f"{self._name}.json", json.dumps(whole).encode())
        (self._state / entry["name"]).replace(folder / entry["name"])
        journal(self._state, self._name).unlink()
        return whole

    def close(self) -> None:
        """Leave it as it is, to go on later."""
        for file in (self._tar, self._journal):
            with suppress(OSError):  # what is not written yet may not fit
                file.close()

    def _write(self, content: bytes) -> None:
        self._tar.write(content)
        self._hash.update(content)
        self._bytes += len(content)

    def _go_on(self) -> None:
        self._tar.seek(0)
        self._journal.seek(0)
        end = 0
        for line in self._journal:
            note = _parse(line)
            if note is None or not self._agrees(note):
                break
            end += len(line)
            self.batches, self.samples = note["batches"], note["samples"]
            self.skipped += note["skipped"]
        self._journal.truncate(end)
        self._tar.truncate(self._bytes)

    def _agrees(self, note: Note) -> bool:
        content = self._tar.read(max(0, note["bytes"] - self._bytes))
        so_far = self._hash.copy()
        so_far.update(content)
        if so_far.hexdigest() != note["sha256"]:
            return False
        self._hash = so_far
        self._bytes += len(content)
        return True


def _parse(line: bytes) -> Note | None:
    """Read a line of the journal; None for one that was cut off."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    is_whole = line.endswith(b"\n") and isinstance(found, dict)
    return found if is_whole and found.keys() == Note.__annotations__.keys() else None


def journal(state: Path, name: str) -> Path:
    """Name the journal of a shard, which is there from its first batch until it is whole."""
    return state / f"{name}.jsonl"


def read_whole(state: Path, name: str, folder: Path) -> WholeShard | None:
    """Return what is known of a shard, or None if it is not whole.

    Args:
        state: Folder of what is not whole yet.
        name: The shard.
        folder: Where it is when it is whole; a move there that a kill has prevented is made now.
    """
    try:
        found: WholeShard = json.loads((state / f"{name}.json").read_text())
        entry = found["shard"]
        for place in (folder, state):
            file = place / entry["name"]
            if file.is_file() and file.stat().st_size == entry["bytes"]:
                file.replace(folder / entry["name"])
                journal(state, name).unlink(missing_ok=True)
                return found
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None


def progress_of(state: Path) -> tuple[int, int]:
    """Count samples so far and pictures in all, for whoever watches other processes."""
    done = total = 0
    for file in (*state.glob("shard-*.json"), *state.glob("shard-*.jsonl")):
        # What is being written at this moment is counted the next time.
        with suppress(OSError, ValueError, LookupError, TypeError):
            last = json.loads(file.read_bytes().splitlines()[-1])
            done += (last["shard"] if file.suffix == ".json" else last)["samples"]
    with suppress(OSError, ValueError, KeyError):
        total = json.loads((state / PLAN).read_text())["images"]["count"]
    return done, total


def to_npy(token_ids: UInt[np.ndarray, "*tokens"]) -> bytes:
    """Write ids as numpy's own format."""
    file = io.BytesIO()
    np.save(file, token_ids, allow_pickle=False)
    return file.getvalue()
