"""The other fields of samples: captions and labels next to images, and members of tars."""

import os
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path, PurePosixPath
from typing import final

import numpy as np
from jaxtyping import Int64

from vqtrain.data.faults import Fault
from vqtrain.data.media import Media
from vqtrain.data.remote.urls import is_url
from vqtrain.data.sources.folders import owner_of
from vqtrain.data.sources.frames import FOLDER_END
from vqtrain.data.sources.index import SampleIndex, make_index
from vqtrain.data.sources.members import read_members
from vqtrain.data.sources.scan import SPARSE, is_tar
from vqtrain.errors import BadSampleError

# Names that a field cannot have in WebDataset: an empty one, and that of the sample's key.
_RESERVED = ("", "__key__")

# Name of a field, its file, where it begins there and how long it is.
_Field = tuple[str, str, int, int]


@final
@dataclass(frozen=True, kw_only=True)
class Fields:
    """The fields of all samples.

    Attributes:
        index: Where they are, in the order of their images; the keys are the names of the fields.
        first: The fields of image i are those in ``range(first[i], first[i + 1])``.
        faults: Fields that cannot be packed.
    """

    index: SampleIndex
    first: Int64[np.ndarray, " m"]
    faults: tuple[Fault, ...]

    def of(self, image_id: int) -> range:
        """Return the positions of an image's fields in ``index``."""
        return range(int(self.first[image_id]), int(self.first[image_id + 1]))


def find_fields(images: SampleIndex) -> Fields:
    """Find files with the same stem next to images, and the other members of tars.

    Only local files: files next to a URL are not found.
    """
    folders: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    tars: dict[str, dict[int, int]] = defaultdict(dict)
    for image_id in range(len(images)):
        path = images.path(image_id)
        if is_url(path):
            continue
        if not is_tar(path):
            folder, name = os.path.split(path.removesuffix(FOLDER_END))
            is_folder = path.endswith(FOLDER_END)
            stem = name if is_folder else os.path.splitext(name)[0]  # noqa: PTH122 - in a loop
            folders[folder][stem].append(image_id)
        else:
            tars[path][int(images.offsets[image_id])] = image_id
    found = [
        field
        for folder, stems in folders.items()
        for field in _next_to(folder, stems, images.media)
    ]
    faults: list[Fault] = []
    for tar, offsets in tars.items():
        for image_id, field, is_sparse in _inside(tar, offsets):
            if is_sparse:
                faults.append(images.fault(image_id, f"its field {field[0]} is left out: {SPARSE}"))
            else:
                found.append((image_id, field))
    found = sorted(field for field in found if field[1][0] not in _RESERVED)
    faults += [
        images.fault(image_id, f"it has a second field {name}, which is left out")
        for (other_id, (other, *_)), (image_id, (name, *_)) in pairwise(found)
        if (other_id, other) == (image_id, name)
    ]
    found = [next(same) for _, same in groupby(found, key=lambda field: (field[0], field[1][0]))]
    counts = np.bincount([image_id for image_id, _ in found], minlength=len(images))
    return Fields(
        index=_to_index([field for _, field in found]),
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        faults=tuple(faults),
    )


def _next_to(
    folder: str, stems: Mapping[str, Sequence[int]], media: Media
) -> Iterator[tuple[int, _Field]]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if media.owns(entry.name) or not entry.is_file():
                continue
            stem = owner_of(entry.name, stems)
            if stem is not None:
                name = entry.name[len(stem) + 1 :].lower()
                for image_id in stems[stem]:
                    yield image_id, (name, entry.path, 0, entry.stat().st_size)


def _inside(path: str, images: Mapping[int, int]) -> Iterator[tuple[int, _Field, bool]]:
    """Find the fields of the images of a tar, and whether each is sparse."""
    # The index of the images lists damage already.
    with suppress(OSError, tarfile.TarError, BadSampleError), Path(path).open("rb") as file:
        for _, group in groupby(filter(tarfile.TarInfo.isfile, read_members(file)), key=_key):
            members = list(group)
            owners = [images[m.offset_data] for m in members if m.offset_data in images]
            for member in members:
                name = PurePosixPath(member.name).name.partition(".")[2].lower()
                if owners and member.offset_data not in images:
                    field = (name, path, member.offset_data, member.size)
                    yield owners[0], field, member.issparse()


def _key(member: tarfile.TarInfo) -> str:
    folder, _, name = member.name.rpartition("/")
    return f"{folder}/{name.split('.')[0]}"


def _to_index(fields: Sequence[_Field]) -> SampleIndex:
    paths: dict[str, int] = {}
    path_ids = [paths.setdefault(path, len(paths)) for _, path, _, _ in fields]
    return make_index(
        paths=list(paths),
        path_ids=path_ids,
        offsets=[offset for _, _, offset, _ in fields],
        sizes=[size for _, _, _, size in fields],
        keys=[os.fsencode(name) for name, *_ in fields],
    )
