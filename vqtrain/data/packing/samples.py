"""One sample of a pack: what is written of it, and its other fields."""

import io
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from typing import final

from vqtrain.data.faults import Fault
from vqtrain.data.packing.base import Found, Member, PackSettings
from vqtrain.data.sources.fields import Fields
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import BadSampleError


@final
@dataclass(frozen=True, kw_only=True)
class Sample:
    """One sample as it is written.

    Attributes:
        fields: Name and bytes of each field; that of ``found`` is the first.
        found: What is found in it.
        digest: The first 32 digits of the SHA-256 of the source's bytes.
    """

    fields: tuple[Member, ...]
    found: Found
    digest: str


@final
@dataclass(frozen=True, kw_only=True)
class Note:
    """Facts about a packed sample, as a shard's journal lists them.

    Attributes:
        sample_id: Its position in the index that is packed.
        digest: As in ``Sample``.
        offset: Where the first field begins in the shard, in bytes.
        length: Of that field, in bytes.
        size: As in ``Found``.
        mode: As in ``Found``.
    """

    sample_id: int
    digest: str
    offset: int
    length: int
    size: tuple[int, ...]
    mode: str

    def listed(self) -> list[object]:
        """Return it as plain values."""
        return [self.sample_id, self.digest, self.offset, self.length, *self.size, self.mode]


def read_note(values: list[int | str]) -> Note:
    """Undo ``listed``."""
    sample_id, digest, offset, length, *size, mode = values
    return Note(
        sample_id=int(sample_id),
        digest=str(digest),
        offset=int(offset),
        length=int(length),
        size=tuple(map(int, size)),
        mode=str(mode),
    )


def make_note(sample_id: int, sample: Sample, content: bytes, *, offset: int) -> Note:
    """Describe a sample for index.json and the list of members.

    Args:
        sample_id: Its position.
        sample: The sample.
        content: The sample as members of a tar.
        offset: Where the members begin in the shard.
    """
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        first = tar.next()
    assert first is not None, "it has the field of the sample"
    return Note(
        sample_id=sample_id,
        digest=sample.digest,
        offset=offset + first.offset_data,
        length=first.size,
        size=sample.found.size,
        mode=sample.found.mode,
    )


def digest_of(encoded: bytes) -> str:
    """Hash a sample: 32 digits of its SHA-256."""
    return sha256(encoded).hexdigest()[:32]


def read_sample(
    index: SampleIndex, fields: Fields, settings: PackSettings, sample_id: int
) -> Sample | Fault:
    """Read and check a sample, and encode it again if that is asked."""
    try:
        source = index.read(sample_id)
        found = settings.examine(source)
        others = [(fields.index.key(i), fields.index.read(i)) for i in fields.of(sample_id)]
        # A second file of a sample may have the name that the first one has now.
        first = found.member[0]
        others = [(f"2.{name}" if name == first else name, some) for name, some in others]
    except BadSampleError as error:
        return index.fault(sample_id, str(error))
    return Sample(fields=(found.member, *others), found=found, digest=digest_of(source))
