"""From files to an index: pictures that lie in folders, and pictures inside tars."""

import os
import tarfile
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from hashlib import blake2b
from pathlib import Path, PurePath, PurePosixPath

import numpy as np
from filelock import FileLock
from jaxtyping import Int64, Shaped

from vqtrain.data.cache import cache_folder
from vqtrain.data.index import ImageIndex
from vqtrain.errors import DataError

PICTURE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

# Part of every cache name: raise it when a scan would find something else than before.
_SCAN_VERSION = 1


def is_picture(name: str | PurePath) -> bool:
    """Tell by its suffix whether a file is a picture."""
    return PurePath(name).suffix.lower() in PICTURE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is passed over."""
    return name.startswith(".") or name == "__MACOSX"


def index_pictures(paths: Sequence[Path], *, root: Path) -> ImageIndex:
    """Index picture files. The key is the path below ``root`` without the suffix.

    Raises:
        DataError: If a file cannot be read.
    """
    sizes, keys = [], []
    for path in paths:
        try:
            sizes.append(path.stat().st_size)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        keys.append(os.fsencode(path.relative_to(root).with_suffix("").as_posix()))
    n = len(paths)
    return ImageIndex(
        paths=tuple(str(path.absolute()) for path in paths),
        path_ids=np.arange(n, dtype=np.int32),
        offsets=np.zeros(n, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        keys=np.array(keys, dtype=np.bytes_),
    )


def scan_tar(path: Path) -> ImageIndex:
    """Index the pictures inside a tar. The key is the name up to the first dot, as in WebDataset.

    Reads every header once, about 50 microseconds each; the result is cached under the tar's path,
    size and time of change. Without a cache folder that can be written it scans every time.

    Raises:
        DataError: If the file is not a tar, is compressed or is cut off.
    """
    path = path.absolute()
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    identity = f"{_SCAN_VERSION} {path} {status.st_size} {status.st_mtime_ns}"
    name = blake2b(os.fsencode(identity), digest_size=16).hexdigest()
    entry = cache_folder() / "tar-index" / f"{name}.npz"
    index = _load(entry, path)
    if index is None:
        with ExitStack() as stack:
            # Ranks of one machine scan a tar once. NotImplementedError: no locks on that disk.
            with suppress(OSError, NotImplementedError):
                entry.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(entry.with_suffix(".lock")))
            index = _load(entry, path)
            if index is None:
                index = _scan(path)
                with suppress(OSError):
                    _store(entry, index)
    return index


def _scan(path: Path) -> ImageIndex:
    offsets, sizes, keys = [], [], []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if member.isfile() and is_picture(name) and not any(map(is_hidden, name.parts)):
                    offsets.append(member.offset_data)
                    sizes.append(member.size)
                    keys.append(os.fsencode(name.with_name(name.name.split(".")[0]).as_posix()))
            end = tar.offset
        # tarfile takes a damaged header for the end of the archive; a true end is zeros or nothing.
        with path.open("rb") as file:
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise DataError(f"{path} is damaged at byte {end}")
    except tarfile.TarError as error:
        raise DataError(f"{path} is not a complete uncompressed tar: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return _index_one_file(
        path,
        offsets=np.array(offsets, dtype=np.int64),
        sizes=np.array(sizes, dtype=np.int64),
        keys=np.array(keys, dtype=np.bytes_),
    )


def _index_one_file(
    path: Path,
    *,
    offsets: Int64[np.ndarray, " n"],
    sizes: Int64[np.ndarray, " n"],
    keys: Shaped[np.ndarray, " n"],
) -> ImageIndex:
    path_ids = np.zeros(len(keys), dtype=np.int32)
    return ImageIndex(
        paths=(str(path),), path_ids=path_ids, offsets=offsets, sizes=sizes, keys=keys
    )


def _load(entry: Path, path: Path) -> ImageIndex | None:
    try:
        with entry.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return _index_one_file(
                path, offsets=arrays["offsets"], sizes=arrays["sizes"], keys=arrays["keys"]
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # absent, or cut off by a full disk


def _store(entry: Path, index: ImageIndex) -> None:
    beside = entry.with_suffix(f".{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            np.savez(file, offsets=index.offsets, sizes=index.sizes, keys=index.keys)
        beside.replace(entry)
    finally:
        beside.unlink(missing_ok=True)
