"""One WebDataset shard, written with a journal from which a killed run continues.

The bytes come from webdataset's TarWriter, member by member. Its ShardWriter is not used: it
writes straight to the target, cannot continue a shard and counts sizes without headers.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypedDict, final

from webdataset.writer import TarWriter

from vqtrain.data.cache import write_whole
from vqtrain.data.faults import Fault

# Two empty blocks end a tar.
END_BYTES = 2 * tarfile.BLOCKSIZE

# Name and bytes of each field of a sample, and a sample with its key.
Fields = tuple[tuple[str, bytes], ...]
Sample = tuple[str, Fields]


class FileEntry(TypedDict):
    """A file as index.json lists it."""

    name: str
    samples: int
    bytes: int
    sha256: str


class JournalLine(TypedDict):
    """The state of a shard after a call of ``add``, and what that call added."""

    writes: int
    samples: int
    bytes: int
    sha256: str
    skipped: list[dict[str, str]]
    notes: list[list[object]]


class WholeShard(TypedDict):
    """The record of a complete shard, kept until all are complete."""

    shard: FileEntry
    writes: int
    skipped: list[dict[str, str]]
    notes: list[list[object]]


def tar_members(samples: Iterable[Sample]) -> bytes:
    """Write samples as tar members without time and owner: equal samples give equal bytes."""
    buffer = io.BytesIO()
    with TarWriter(
        buffer,
        encoder=False,
        user="",
        group="",
        mode=0o644,
        mtime=0,
        keep_meta=True,  # otherwise it drops fields whose names begin with _
    ) as writer:
        writer.tarstream.format = tarfile.GNU_FORMAT  # webdataset 1.0.2 ignores its own argument
        for key, fields in samples:
            for name, content in fields:  # one by one, as it sorts the fields of a call
                writer.write({"__key__": key, name: content})
        length = writer.tarstream.offset  # what follows ends the tar
    return buffer.getvalue()[:length]


@final
class ShardWriter:
    """Writes a shard, or continues it where its journal ends.

    The journal gets a line after each call of ``add``. After a kill, bytes after the last line that
    matches the shard are cut off.

    Args:
        state: Folder of incomplete files.
        name: The shard below its folder, without suffix, such as ``train/shard-00000``.
        is_new: Whether to start again, even if there is a journal.

    Attributes:
        writes: Calls of ``add`` so far.
        samples: Samples so far.
        bytes: Length so far, without the end of the tar.
        skipped: Samples skipped so far.
        notes: Notes of all calls of ``add``.
    """

    def __init__(self, *, state: Path, name: str, is_new: bool = False) -> None:
        mode = "w+b" if is_new else "a+b"
        self._state, self._name = state, name
        self._tar = _partial(state, name).open(mode)
        self._journal = _journal(state, name).open(mode)
        self._hash = sha256()
        self.writes = self.samples = self.bytes = 0
        self.skipped: list[dict[str, str]] = []
        self.notes: list[list[object]] = []
        self._continue()

    def add(
        self,
        content: bytes,
        *,
        samples: int,
        skipped: Sequence[Fault],
        notes: Sequence[list[object]] = (),
    ) -> None:
        """Write some samples at once.

        Args:
            content: From ``tar_members``.
            samples: Number of samples in it.
            skipped: Bad samples that belong here.
            notes: Rows of plain values to keep with the shard.
        """
        self._write(content)
        self._tar.flush()
        line = JournalLine(
            writes=self.writes + 1,
            samples=self.samples + samples,
            bytes=self.bytes,
            sha256=self._hash.hexdigest(),
            skipped=[fault.listed() for fault in skipped],
            notes=list(notes),
        )
        self._journal.write(f"{json.dumps(line)}\n".encode())
        self._journal.flush()
        self._count(line)

    def finish(self, folder: Path) -> WholeShard:
        """Flush the complete shard to the disk and move it below a folder."""
        self._write(b"\0" * END_BYTES)
        self._tar.flush()
        os.fsync(self._tar.fileno())
        self.close()
        entry = FileEntry(
            name=f"{self._name}.tar",
            samples=self.samples,
            bytes=self.bytes,
            sha256=self._hash.hexdigest(),
        )
        whole = WholeShard(
            shard=entry,
            writes=self.writes,
            skipped=self.skipped,
            notes=self.notes,
        )
        # Before the move, so that a kill cannot leave a shard without a record.
        write_whole(_whole(self._state, self._name), json.dumps(whole).encode())
        _move(self._state, self._name, folder)
        return whole

    def close(self) -> None:
        """Close it as it is, to be continued later."""
        for file in (self._tar, self._journal):
            with suppress(OSError):  # the disk may be full
                file.close()

    def _write(self, content: bytes) -> None:
        self._tar.write(content)
        self._hash.update(content)
        self.bytes += len(content)

    def _count(self, line: JournalLine) -> None:
        self.writes, self.samples = line["writes"], line["samples"]
        self.skipped += line["skipped"]
        self.notes += line["notes"]

    def _continue(self) -> None:
        self._tar.seek(0)
        self._journal.seek(0)
        end = 0
        for text in self._journal:
            line = _parse(text)
            if line is None or not self._agrees(line):
                break
            end += len(text)
            self._count(line)
        self._journal.truncate(end)
        self._tar.truncate(self.bytes)

    def _agrees(self, line: JournalLine) -> bool:
        content = self._tar.read(max(0, line["bytes"] - self.bytes))
        digest = self._hash.copy()
        digest.update(content)
        if digest.hexdigest() != line["sha256"]:
            return False
        self._hash = digest
        self.bytes += len(content)
        return True


def has_begun(state: Path, name: str) -> bool:
    """Tell whether a shard has a journal: from its first write until it is complete."""
    return _journal(state, name).is_file()


def read_whole(state: Path, name: str, folder: Path) -> WholeShard | None:
    """Return the record of a shard, or None if it is incomplete.

    Args:
        state: Folder of incomplete files.
        name: The shard.
        folder: Folder of complete shards; a move that a kill has prevented is done now.
    """
    try:
        found: WholeShard = json.loads(_whole(state, name).read_text())
        target, size = folder / found["shard"]["name"], found["shard"]["bytes"]
        if not (target.is_file() and target.stat().st_size == size):
            if _partial(state, name).stat().st_size != size:
                return None
            _move(state, name, folder)
        _journal(state, name).unlink(missing_ok=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def progress_of(state: Path) -> int:
    """Count the samples of all shards so far, for a process that watches others."""
    done = 0
    for file in (*state.glob("shard-*.json"), *state.glob("shard-*.jsonl")):
        # A line that is being written now is counted the next time.
        with suppress(OSError, ValueError, LookupError, TypeError):
            last = json.loads(file.read_bytes().splitlines()[-1])
            done += last.get("shard", last)["samples"]
    return done


def _move(state: Path, name: str, folder: Path) -> None:
    target = folder / f"{name}.tar"
    target.parent.mkdir(exist_ok=True)
    _partial(state, name).replace(target)
    _journal(state, name).unlink(missing_ok=True)


def _parse(text: bytes) -> JournalLine | None:
    """Parse a line of the journal; None if it was cut off."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    is_whole = text.endswith(b"\n") and isinstance(found, dict)
    return found if is_whole and found.keys() == JournalLine.__annotations__.keys() else None


def _partial(state: Path, name: str) -> Path:
    return state / f"{name.replace('/', '-')}.part"


def _journal(state: Path, name: str) -> Path:
    return state / f"{name.replace('/', '-')}.jsonl"


def _whole(state: Path, name: str) -> Path:
    return state / f"{name.replace('/', '-')}.json"
