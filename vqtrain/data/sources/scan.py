"""From files to an index: samples in folders, and samples inside tars."""

import errno
import io
import os
import re
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path, PurePath, PurePosixPath
from typing import final

import numpy as np

from vqtrain.data.cache import cache_folder, cached, write_whole
from vqtrain.data.faults import Fault
from vqtrain.data.media import IMAGE, Media
from vqtrain.data.remote.files import read_small
from vqtrain.data.remote.reading import open_file
from vqtrain.data.remote.urls import RemoteFile, shown
from vqtrain.data.sources.frames import FOLDER_END, list_frames
from vqtrain.data.sources.index import SampleIndex, make_index
from vqtrain.data.sources.members import read_members
from vqtrain.errors import BadSampleError, DataError

# Why a member with holes is left out: its bytes are neither in one piece nor where they seem to be.
SPARSE = "it is stored with holes: write the tar without --sparse (-S)"

# Folders that systems make next to the user's own files: thumbnails, deleted files, old versions.
SYSTEM_FOLDERS = frozenset(
    ("__MACOSX", "@eaDir", "@Recycle", "#recycle", "#snapshot", "$RECYCLE.BIN", "lost+found")
)

# Next to shard-00000.tar, shard-00000.members.npz lists where its samples are.
MEMBERS_SUFFIX = ".members.npz"

# Part of every cache name: increase it when the result of a scan changes.
_SCAN_VERSION = 4

# First bytes of compressed files, in which a member is found only by reading all before it.
COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def is_tar(name: str | PurePath) -> bool:
    """Tell by its suffix whether a file is a tar, compressed or not."""
    return re.search(r"\.(tar(\.(gz|bz2|xz|zst))?|tgz|tbz2|txz)$", str(name).lower()) is not None


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is ignored."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def begins_as(media: Media, file: io.BufferedReader) -> bool:
    """Read the first bytes of a file, and tell whether they are those of a sample of some media."""
    return media.begins(file.read(12))


def index_files(paths: Sequence[Path | RemoteFile], *, root: str | Path) -> SampleIndex:
    """Index files of one sample each, or folders of frames.

    The key is the path below ``root``, of a file without the suffix.

    A file that cannot be read is listed among the faults.

    Args:
        paths: The files.
        root: A folder, or the beginning of a URL.
    """
    names, sizes, keys, faults = [], [], [], []
    for path in paths:
        if isinstance(path, RemoteFile):
            name, below = path.name, path.name.removeprefix(str(root)).lstrip("/")
        else:
            name, below = str(path.absolute()), str(path.relative_to(root))
        key = os.path.splitext(below)[0]  # noqa: PTH122 - or a URL
        try:
            if isinstance(path, Path) and path.is_dir():
                key, name = str(path.relative_to(root)), f"{name}{FOLDER_END}"
                key = path.name if key == "." else key
                sizes.append(sum(entry.stat().st_size for entry in list_frames(path)))
            else:
                sizes.append(path.size if isinstance(path, RemoteFile) else size_of(path))
        except OSError as error:
            faults.append(Fault(shard=name, key=key, reason=f"cannot read it: {error.strerror}"))
            continue
        names.append(path.text if isinstance(path, RemoteFile) else name)
        keys.append(os.fsencode(key))
    return make_index(
        paths=names,
        path_ids=range(len(names)),
        offsets=[0] * len(names),
        sizes=sizes,
        keys=keys,
        faults=faults,
    )


def size_of(path: Path) -> int:
    """Return the length of a file in bytes.

    Raises:
        OSError: If it cannot be read or is not a regular file (a pipe would block).
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return status.st_size


def scan_tar(tar: Path | RemoteFile, media: Media = IMAGE) -> SampleIndex:
    """Index the samples inside a tar. The key is the name up to the first dot, as in WebDataset.

    If several files in a row have one key, such as a.jpg and a.seg.png, the first is taken. A tar
    that is cut off or damaged gives the samples before the damage, and a fault. Links, and members
    that are stored with holes, are faults, too.

    The offsets come from the file of ``write_members``, if there is one for a tar of this size.
    Otherwise every header is read once, about 50 microseconds each; of a remote tar, all bytes. The
    result is cached under the tar's path, size and modification time or tag. If the cache folder
    cannot be written, the tar is scanned every time.

    Raises:
        DataError: If the tar is compressed or cannot be opened, or its server does not answer.
    """
    if isinstance(tar, RemoteFile):
        source: _LocalTar | _RemoteTar = _RemoteTar(tar)
    else:
        source = _LocalTar(tar.absolute())
    version = f"{_SCAN_VERSION}" if media is IMAGE else f"{_SCAN_VERSION} {media.word}"
    name = blake2b(os.fsencode(f"{version} {source.identity}"), digest_size=16).hexdigest()
    entry = cache_folder() / "tar-index" / f"{name}.npz"
    members = cached(
        entry,
        load=lambda: _load(entry, size=source.size),
        compute=lambda: _unpack(source.read_list(), size=source.size) or _scan(source, media),
        pack=lambda found: _pack(found, size=source.size),
    )
    return make_index(
        paths=[source.path],
        path_ids=[0] * len(members.keys),
        offsets=members.offsets,
        sizes=members.sizes,
        keys=members.keys,
        ratios=members.ratios or None,
        faults=[Fault(shard=shown(source.path), key=k, reason=r) for k, r in members.faults],
        others=members.others,
    )


def write_members(
    tar: Path,
    *,
    offsets: Sequence[int],
    sizes: Sequence[int],
    keys: Sequence[str],
    ratios: Sequence[float] = (),
) -> Path:
    """List where the samples of a tar are, so that it need not be scanned.

    Args:
        tar: A tar that is complete.
        offsets: Where each image begins in the tar, in bytes.
        sizes: Length of each image, in bytes.
        keys: Name of each image.
        ratios: Width / height of each image, upright; none if they are not known.

    Returns:
        The file written, next to the tar.

    Raises:
        OSError: If it cannot be written.
    """
    names = [os.fsencode(key) for key in keys]
    members = _Members(list(offsets), list(sizes), names, ratios=list(ratios))
    path = Path(_members_name(str(tar)))
    write_whole(path, _pack(members, size=tar.stat().st_size))
    return path


def _members_name(tar: str) -> str:
    return tar.removesuffix(".tar") + MEMBERS_SUFFIX


@final
@dataclass
class _Members:
    """The content of a tar.

    Attributes:
        offsets: Where each image begins, in bytes.
        sizes: Length of each image, in bytes.
        keys: Name of each image.
        faults: Key and reason of each fault.
        others: How many files there are of each suffix in samples without an image.
        ratios: Width / height of each image, or none.
    """

    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    ratios: list[float] = field(default_factory=list)


@final
class _LocalTar:
    """A local tar."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        try:
            self.size, status = size_of(path), path.stat()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        self.identity = f"{path} {status.st_size} {status.st_mtime_ns}"

    def open(self) -> io.BufferedReader:
        return Path(self.path).open("rb")

    def read_list(self) -> bytes | None:
        try:
            return Path(_members_name(self.path)).read_bytes()
        except OSError:
            return None


@final
class _RemoteTar:
    """A remote tar."""

    def __init__(self, file: RemoteFile) -> None:
        self.path = file.text
        self.size = file.size
        self.identity = f"{file.url} {file.size} {file.tag}"
        self._file = file

    def open(self) -> io.BufferedReader:
        return open_file(self.path)

    def read_list(self) -> bytes | None:
        query = self._file.url.removeprefix(self._file.name)
        return read_small(_members_name(self._file.name) + query)


def _scan(source: _LocalTar | _RemoteTar, media: Media) -> _Members:
    members = _Members()
    try:
        with source.open() as file:
            try:
                _walk(file, members, media, size=source.size)
            except tarfile.TarError as error:
                file.seek(0)
                beginning = file.read(8)
                for mark, name in COMPRESSIONS.items():
                    if beginning.startswith(mark):
                        raise DataError(
                            f"{shown(source.path)} is compressed with {name}: uncompress it, as "
                            f"its {media.noun}s cannot be found without reading all before them"
                        ) from None
                members.faults.append(("", _explain(error, members, size=source.size)))
    except BadSampleError as error:
        members.faults.append(("", str(error)))
    except OSError as error:
        raise DataError(f"cannot read {source.path}: {error.strerror}") from error
    return members


def _walk(file: io.BufferedReader, members: _Members, media: Media, *, size: int) -> None:
    """Find the first file of each sample."""
    group, is_found, others = "", False, list[str]()
    for member in read_members(file):
        name = PurePosixPath(member.name)
        is_link = member.islnk() or member.issym()
        if not (member.isfile() or is_link) or any(map(is_hidden, name.parts)):
            continue
        key = name.with_name(name.name.split(".")[0]).as_posix()
        if key != group:
            members.others.update([] if is_found else others)
            group, is_found, others = key, False, []
        others.append(name.suffix.lower())
        if is_found or not _is_sample(file, member, name, media):
            continue
        is_found = True
        if is_link:
            # The second of two names that a file has on the disk is written as a link, too.
            reason = f"it is a link to {member.linkname}: links in tars are not followed"
            members.faults.append((key, reason))
        elif member.issparse():
            members.faults.append((key, SPARSE))
        elif member.offset_data + member.size > size:
            members.faults.append((key, f"the tar ends inside this {media.noun}"))
            return
        else:
            members.offsets.append(member.offset_data)
            members.sizes.append(member.size)
            members.keys.append(os.fsencode(key))
    members.others.update([] if is_found else others)


def _is_sample(
    file: io.BufferedReader, member: tarfile.TarInfo, name: PurePosixPath, media: Media
) -> bool:
    if name.suffix or not member.isfile():
        return media.owns(name)
    file.seek(member.offset_data)
    return begins_as(media, file)


def _explain(error: tarfile.TarError, members: _Members, *, size: int) -> str:
    if size == 0:
        return "the file is empty"
    if not members.keys:
        return f"it is not a tar ({error})"
    return f"the tar is damaged or cut off ({error}): what follows is lost"


def _pack(members: _Members, *, size: int) -> bytes:
    packed = io.BytesIO()
    np.savez(
        packed,
        tar_bytes=np.int64(size),
        offsets=np.array(members.offsets, dtype=np.int64),
        sizes=np.array(members.sizes, dtype=np.int64),
        keys=np.array(members.keys, dtype=np.bytes_),
        faults=np.array(members.faults, dtype=np.str_).reshape(-1, 2),
        others=np.array(list(members.others.items()), dtype=np.str_).reshape(-1, 2),
        ratios=np.array(members.ratios, dtype=np.float32),
    )
    return packed.getvalue()


def _unpack(packed: bytes | None, *, size: int) -> _Members | None:
    """Undo ``_pack``; None if the result is invalid or of a tar of another size."""
    if packed is None:
        return None
    try:
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            offsets, sizes, keys = arrays["offsets"], arrays["sizes"], arrays["keys"]
            faults = [(key, reason) for key, reason in arrays["faults"].tolist()]
            # Packs of older versions do not count them.
            counts = arrays["others"].tolist() if "others" in arrays else []
            others = Counter({suffix: int(count) for suffix, count in counts})
            ratios = arrays["ratios"].tolist() if "ratios" in arrays else []
            is_sound = (
                int(arrays["tar_bytes"]) == size
                and offsets.shape == sizes.shape == keys.shape
                and len(ratios) in (0, len(keys))
                and bool(np.all((offsets >= 0) & (sizes >= 0) & (offsets + sizes <= size)))
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # cut off by a full disk, or another file
    if not is_sound:
        return None
    return _Members(offsets.tolist(), sizes.tolist(), keys.tolist(), faults, others, ratios)


def _load(entry: Path, *, size: int) -> _Members | None:
    try:
        return _unpack(entry.read_bytes(), size=size)
    except OSError:
        return None
