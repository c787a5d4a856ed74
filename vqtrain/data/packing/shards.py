"""One WebDataset shard: written beside its place, then moved there with what is known of it."""

import json
import os
import tarfile
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import TypedDict, final

import numpy as np
from jaxtyping import Shaped

from vqtrain.data.cache import write_whole
from vqtrain.data.faults import Fault
from vqtrain.data.packing.pictures import Sample
from vqtrain.data.scan import write_members

# Two empty blocks end a tar.
END_BYTES = 2 * tarfile.BLOCKSIZE

# Which picture a digest belongs to; kept until duplicates are looked for.
DIGESTS = np.dtype([("image_id", "<i8"), ("digest", "S32")])


class ShardEntry(TypedDict):
    """A shard as index.json lists it: its file below the pack, and what is in it."""

    name: str
    samples: int
    bytes: int
    sha256: str
    sizes: dict[str, str]
    modes: dict[str, int]


class ShardState(TypedDict):
    """What is known of a whole shard until the pack is complete.

    ``end`` is the number of pictures of this split that are done with, in packing order.
    """

    end: int
    shard: ShardEntry
    skipped: list[dict[str, str]]


@final
class ShardWriter:
    """Writes one shard.

    Args:
        out: The pack.
        state: Its folder for what is not whole yet, on the same disk.
        name: The shard, such as ``train/shard-00000``.

    Attributes:
        bytes: Length so far.
        skipped: What was left out.
    """

    def __init__(self, *, out: Path, state: Path, name: str) -> None:
        self._tar, self._name = out / f"{name}.tar", name
        self._state = state
        self._beside = state / "shard.tar"
        self._file = self._beside.open("wb")
        self._hash = sha256()
        self._members: list[tuple[int, int, str]] = []
        self._pictures: list[tuple[int, bytes]] = []
        self._sizes: list[tuple[int, int]] = []
        self._modes: Counter[str] = Counter()
        self.skipped: list[dict[str, str]] = []
        self.bytes = 0

    @property
    def samples(self) -> int:
        """Count the samples so far."""
        return len(self._members)

    def add(self, image_id: int, key: str, sample: Sample, pieces: list[bytes]) -> None:
        """Write a sample, given as ``tar_pieces`` of it."""
        # The picture is the first member: its bytes follow the first header.
        offset = self.bytes + len(pieces[0])
        self._members.append((offset, len(sample.members[0][1]), key))
        self._pictures.append((image_id, sample.digest.encode()))
        self._sizes.append((sample.width, sample.height))
        self._modes[sample.mode] += 1
        self._write(b"".join(pieces))

    def skip(self, fault: Fault) -> None:
        """Note a picture that is left out."""
        self.skipped.append(asdict(fault))

    def finish(self, end: int) -> ShardState:
        """Move the shard to its place; from then on it is kept.

        Args:
            end: Pictures of this split that are done with.
        """
        self._write(b"\0" * END_BYTES)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._tar.parent.mkdir(exist_ok=True)
        self._beside.replace(self._tar)
        offsets, sizes, keys = zip(*self._members, strict=True)
        write_members(
            self._tar,
            offsets=offsets,
            sizes=sizes,
            keys=keys,
        )
        state = ShardState(end=end, shard=self._describe(), skipped=self.skipped)
        base = state_name(self._name)
        with (self._state / f"{base}.npy").open("wb") as file:
            np.save(file, np.array(self._pictures, dtype=DIGESTS))
        write_whole(self._state / f"{base}.json", json.dumps(state).encode())
        return state

    def close(self) -> None:
        """Give up what is not finished; of a full disk, this makes room."""
        with suppress(OSError):  # what is not written yet may not fit
            self._file.close()
        self._beside.unlink(missing_ok=True)

    def _write(self, content: bytes) -> None:
        self._file.write(content)
        self._hash.update(content)
        self.bytes += len(content)

    def _describe(self) -> ShardEntry:
        ordered = sorted(self._sizes, key=lambda size: (min(size), max(size), size))
        sizes = {"smallest": 0, "median": len(ordered) // 2, "largest": -1}
        return ShardEntry(
            name=f"{self._name}.tar",
            samples=self.samples,
            bytes=self.bytes,
            sha256=self._hash.hexdigest(),
            sizes={word: "{} x {}".format(*ordered[i]) for word, i in sizes.items()},
            modes=dict(sorted(self._modes.items())),
        )


def tar_pieces(key: str, sample: Sample) -> list[bytes]:
    """Write a sample as members of a tar, with neither time nor owner: equal bytes each time.

    Returns:
        Header, content and padding of each member.
    """
    pieces = []
    for field, content in sample.members:
        member = tarfile.TarInfo(f"{key}.{field}")
        member.size = len(content)
        header = member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        pieces += [header, content, b"\0" * (-len(content) % tarfile.BLOCKSIZE)]
    return pieces


def read_state(out: Path, state: Path, name: str) -> ShardState | None:
    """Return what is known of a shard, or None if it is not whole."""
    try:
        found: ShardState = json.loads((state / f"{state_name(name)}.json").read_text())
        is_whole = (out / f"{name}.tar").stat().st_size == found["shard"]["bytes"]
        members = (out / f"{name}.members.npz").stat().st_size
        read_digests(state, name)
    except (OSError, EOFError, ValueError, KeyError):
        return None
    return found if is_whole and members else None


def read_digests(state: Path, name: str) -> Shaped[np.ndarray, " n"]:
    """Return which picture of a shard has which digest."""
    return np.load(state / f"{state_name(name)}.npy", allow_pickle=False)


def state_name(name: str) -> str:
    """Name the files of what is known of a shard."""
    return name.replace("/", "-")
