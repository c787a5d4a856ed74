"""From the value of ``data.train``, ``data.val`` or ``images`` to an index."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from glob import glob
from itertools import groupby, product
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np

from vqtrain.data.remote.files import find, read_small
from vqtrain.data.remote.urls import SCHEMES, RemoteFile, is_url
from vqtrain.data.sources.demo import Role, demo_shards
from vqtrain.data.sources.folders import Listing, is_image_file, list_folder, owner_of
from vqtrain.data.sources.index import ImageIndex, hold_out, make_index
from vqtrain.data.sources.pipes import Stream, spool
from vqtrain.data.sources.scan import (
    IMAGE_SUFFIXES,
    SYSTEM_FOLDERS,
    index_images,
    is_hidden,
    is_image,
    is_tar,
    scan_tar,
)
from vqtrain.errors import ConfigError, DataError, naming
from vqtrain.ranges import nearest

# Requests at the same time: a thousand remote tars open in seconds.
THREADS = 16
# Of a source; more would be a typo.
MAX_WEIGHT = 1_000
# The format in the index.json of ``vqtrain pack``, and its folder for each role.
PACK_FORMAT = "vqtrain-pack"
# Its folder inside a pack that is not complete.
UNFINISHED = ".pack"
_SPLITS: Mapping[Role, str] = {"training": "train", "validation": "val"}

_LOOKED_FOR = f"tars and images ({' '.join(sorted(IMAGE_SUFFIXES))})"

# IMAGES: a source, a source with a weight, or several.
Source = str | Mapping[str, object]
Images = Source | Sequence[Source]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def training_and_validation(train: Images, val: Images) -> tuple[ImageIndex | Stream, ImageIndex]:
    """Find the images to train on and those to validate on.

    Pipes (``pipe:``) cannot seek; they are read in sequence, and their output is not kept.

    Args:
        train: IMAGES, as for ``open_images``.
        val: IMAGES, or ``auto``: the held-out images of ``demo`` and of packed folders, otherwise
            a share of ``train`` that is then not trained on.

    Raises:
        ConfigError: If a weight is invalid, or pipes are combined with weights or other sources.
        DataError: If images are missing or too few.
    """
    if _has_pipe(train):
        stream = _open_stream(train)
        if val == "auto":
            raise ConfigError(
                "data.val=auto cannot hold out images of a pipe: name images to validate on"
            )
        return stream, open_images(val, role="validation", key="data.val")
    return open_both(train, val, keys=("data.train", "data.val"))


def open_both(
    train: Images, val: Images, *, keys: tuple[str, str]
) -> tuple[ImageIndex, ImageIndex]:
    """Find images to train on and images to validate on, all of which can be read in any order.

    Args:
        train: IMAGES, as for ``open_images``.
        val: IMAGES or ``auto``, as for ``training_and_validation``.
        keys: The config keys that name them, for messages.

    Raises:
        ConfigError: If a weight is invalid.
        DataError: If images are missing or too few.
    """
    training = open_images(train, role="training", key=keys[0])
    if val != "auto":
        return training, open_images(val, role="validation", key=keys[1])
    only = train
    if not isinstance(train, str | Mapping) and len(train) == 1:
        only = train[0]
    if isinstance(only, str) and (only == "demo" or _has_validation(only)):
        return training, open_images(only, role="validation", key=keys[0])
    return hold_out(training, key=keys[1])


def open_images(images: Images, *, role: Role, key: str = "images") -> ImageIndex:
    """Index images of any source; the kind of source is detected automatically.

    The word ``demo``; a folder of images, or of tars if it holds no image; a folder of ``vqtrain
    pack``; an image; a tar; a glob; a brace list such as ``shards-{000..099}.tar``; the URL of one
    of those (http, https, s3, gs, hf); ``pipe:`` and a command that writes a tar. A path that
    exists is never read as a glob or a brace list.

    Args:
        images: A source; or ``{images: ..., weight: 2}``, which is seen twice as often; or a list
            of both, joined in this order.
        role: Which images of ``demo`` and packed folders to use.
        key: The config key that names the sources, for messages.

    Raises:
        ConfigError: If a weight is invalid.
        DataError: If a source does not exist, holds no images or cannot be read.
    """
    with naming(key):
        return _open(images, role)


def _open(images: Images, role: Role) -> ImageIndex:
    sources = [images] if isinstance(images, str | Mapping) else images
    if not sources or "" in sources:
        raise DataError("a source is empty: name demo, a folder, a glob or tars")
    return ImageIndex.concatenate(
        [
            _open_source(source, role) if isinstance(source, str) else _open_weighted(source, role)
            for source in sources
        ]
    )


def expand_braces(pattern: str) -> list[str]:
    """Expand ``{a,b}`` and ``{000..099}`` as a shell does; other braces stay as they are.

    Example:
        >>> expand_braces("{train,val}-{08..10}.tar")[:4]
        ['train-08.tar', 'train-09.tar', 'train-10.tar', 'val-08.tar']
    """
    pieces = [_alternatives(piece) for piece in re.split(r"(\{[^{}]*\})", pattern)]
    expanded = ["".join(choice) for choice in product(*pieces)]
    if expanded == [pattern]:
        return expanded
    # Again, for nested braces.
    return list(dict.fromkeys(last for once in expanded for last in expand_braces(once)))


def _alternatives(piece: str) -> list[str]:
    numbers = re.fullmatch(r"\{(\d+)\.\.(\d+)\}", piece)
    if numbers:
        first, last = numbers.groups()
        is_padded = any(end.startswith("0") and len(end) > 1 for end in (first, last))
        width = max(len(first), len(last)) if is_padded else 0
        step = 1 if int(first) <= int(last) else -1
        return [f"{number:0{width}d}" for number in range(int(first), int(last) + step, step)]
    if piece.startswith("{") and piece.endswith("}") and "," in piece:
        return piece[1:-1].split(",")
    return [piece]


def _open_weighted(item: Mapping[str, object], role: Role) -> ImageIndex:
    if set(item) != {"images", "weight"}:
        raise ConfigError(
            f"a source with a weight has the keys images and weight, got {dict(item)!r}"
        )
    images, weight = item["images"], item["weight"]
    if (
        isinstance(weight, bool)
        or not isinstance(weight, int | float)
        or not 0 < weight <= MAX_WEIGHT
    ):
        raise ConfigError(
            f"a weight must be a number above 0 and at most {MAX_WEIGHT}, got {weight!r} for "
            f"{images!r}"
        )
    if not isinstance(images, str | Mapping | Sequence):
        raise ConfigError(f"a source with a weight must name one source or several, got {images!r}")
    index = _open(images, role)
    return replace(index, weights=index.weights * np.float32(weight))


def _has_pipe(images: object) -> bool:
    if isinstance(images, str):
        return images.startswith("pipe:")
    if isinstance(images, Mapping):
        return _has_pipe(images.get("images"))
    return isinstance(images, Sequence) and any(map(_has_pipe, images))


def _open_stream(images: Images) -> Stream:
    sources = [images] if isinstance(images, str | Mapping) else images
    pipes = [source for source in sources if isinstance(source, str) and _has_pipe(source)]
    if len(pipes) < len(sources):
        raise ConfigError(
            "a pipe is read in sequence, so it can have no weight and no other images: "
            f"data.train must name pipes alone, got {images!r}"
        )
    commands = [part for pipe in pipes for part in expand_braces(pipe.removeprefix("pipe:"))]
    if not all(command.strip() for command in commands):
        raise ConfigError("pipe: must be followed by a command that writes a tar")
    return Stream(commands=tuple(commands))


def _open_source(source: str, role: Role) -> ImageIndex:
    if source == "demo":
        files, root = [Path(shard) for shard in demo_shards(role)], ""
        return _index(files, root=root)
    if source.startswith("pipe:"):
        # The output is kept in a file, which is indexed like any other tar.
        tars = [spool(command) for command in expand_braces(source.removeprefix("pipe:"))]
        index = _index(tars, root="")
    elif is_url(source):
        index = _join(_in_threads(lambda url: _open_url(url, role), expand_braces(source)))
    elif re.match(r"[a-z][a-z0-9+.-]*://", source):
        raise DataError(f"{source}: URLs may begin with {', '.join(f'{s}://' for s in SCHEMES)}")
    else:
        literal = os.path.expanduser(source)  # noqa: PTH111 - Path raises for an unknown ~user
        patterns = [literal] if _exists(literal) else expand_braces(literal)
        index = _join(_in_threads(lambda pattern: _open_pattern(pattern, role), patterns))
    if len(index) == 0:
        if index.faults:
            fault = index.faults[0]
            raise DataError(f"{source} holds no images: {fault.shard}: {fault.reason}")
        raise DataError(f"{source} holds no images: looked for {_LOOKED_FOR}")
    return index


def _open_url(url: str, role: Role) -> ImageIndex:
    """Open a remote file, a packed folder, a folder, or all files that match a glob."""
    name = RemoteFile(url, 0, "").name
    is_glob = re.search(r"[*?[]", name) is not None
    is_file = not is_glob and (is_image(name) or is_tar(name))
    if not is_file and not is_glob:
        shards = _packed_shards(url, role)
        if shards:
            return _join(_in_threads(lambda shard: _open_url(shard, role), shards))
    files = find(url)
    if not files and is_glob:
        raise DataError(f"no file matches {url}")
    if not is_file:
        root = re.split(r"[^/]*[*?[]", url, maxsplit=1)[0].rstrip("/")
        taken, others = _usable(files, root)
        return _join([_index(taken, root=root), make_index(others=others)])
    return _index(files, root=url.rpartition("/")[0])


def _usable(
    files: Sequence[RemoteFile], root: str
) -> tuple[Sequence[RemoteFile], Mapping[str, int]]:
    """Keep the images, or the tars if there are no images; and count the others by suffix."""
    seen = [
        file
        for file in files
        if not any(map(is_hidden, PurePosixPath(file.name.removeprefix(root)).parts))
    ]
    taken = [f for f in seen if is_image(f.name)] or [f for f in seen if is_tar(f.name)]
    names = {file.name for file in taken}
    stems = {os.path.splitext(name)[0] for name in names}  # noqa: PTH122 - of a URL
    others = (f.name for f in seen if f.name not in names and owner_of(f.name, stems) is None)
    return taken, Counter(PurePosixPath(name).suffix.lower() for name in others)


def _open_pattern(pattern: str, role: Role) -> ImageIndex:
    """Open a path that exists, otherwise all files that match a glob."""
    path = Path(pattern)
    if os.path.isdir(pattern):  # noqa: PTH112 - as _exists
        shards = _packed_shards(pattern, role)
        if shards:
            return _join(_in_threads(lambda shard: _open_pattern(shard, role), shards))
        return _index_listing(list_folder(path), root=pattern)
    if _exists(pattern):
        if not is_tar(path) and not is_image_file(path):
            raise DataError(f"{path} is neither a tar nor an image: looked for {_LOOKED_FOR}")
        return _index([path], root=str(path.parent))
    root = re.split(r"[^/]*[*?[]", pattern, maxsplit=1)[0]
    # pathlib's glob takes no absolute pattern.
    matches = [Path(match) for match in glob(pattern, recursive=True)]  # noqa: PTH207
    if not matches:
        raise DataError(_explain_missing(pattern, Path(root)))
    below = [m for m in matches if SYSTEM_FOLDERS.isdisjoint(m.relative_to(root).parts)]
    found = Listing()
    files = []
    for match in below:
        if match.is_dir():
            found.extend(list_folder(match))
        else:
            files.append(match)
    for _, siblings in groupby(sorted(files), key=lambda file: file.parent):
        found.add(siblings)
    return _index_listing(found, root=root)


def _index_listing(found: Listing, *, root: str) -> ImageIndex:
    taken = {*found.images, *found.tars}
    others = Counter(path.suffix.lower() for path in found.others - taken)
    rest = make_index(faults=dict.fromkeys(found.faults), others=others)
    return _join([_index(sorted(taken), root=root), rest])


def _index(files: Sequence[Path | RemoteFile], *, root: str) -> ImageIndex:
    images: list[Path | RemoteFile] = []
    tars: list[Path | RemoteFile] = []
    for file in files:
        (tars if is_tar(file.name) else images).append(file)
    return _join([index_images(images, root=root), *_in_threads(scan_tar, tars)])


def _join(indexes: Sequence[ImageIndex]) -> ImageIndex:
    return indexes[0] if len(indexes) == 1 else ImageIndex.concatenate(indexes)


def _in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Apply a function in several threads, which mostly wait; return the results in order."""
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(THREADS, len(items))) as pool:
        return list(pool.map(work, items))  # at the first error it cancels what waits


def _packed_shards(folder: str, role: Role) -> list[str]:
    """List the shards of a packed folder for a role; none if it is not a packed folder.

    Raises:
        DataError: If it is a packed folder without such shards.
    """
    pack = _read_pack(folder)
    if pack is None:
        if os.path.isdir(f"{folder}/{UNFINISHED}"):  # noqa: PTH112 - of a URL it is none
            raise DataError(
                f"{folder} is an unfinished pack: give the same vqtrain pack again to continue it"
            )
        return []
    shards = _shard_names(pack, _SPLITS[role])
    if not shards:
        raise DataError(f"{folder} is packed without images for {role}")
    return [f"{folder.rstrip('/')}/{name}" for name in shards]


def _has_validation(source: str) -> bool:
    is_folder = is_url(source) or os.path.isdir(os.path.expanduser(source))  # noqa: PTH111, PTH112
    pack = _read_pack(os.path.expanduser(source)) if is_folder else None  # noqa: PTH111 - as above
    return pack is not None and bool(_shard_names(pack, _SPLITS["validation"]))


def _read_pack(folder: str) -> Mapping[str, object] | None:
    """Read the index.json of a packed folder; None if it is not a packed folder."""
    name = f"{folder.rstrip('/')}/index.json"
    if is_url(folder):
        content = read_small(name)
    else:
        content = None
        with suppress(OSError):
            content = Path(name).read_bytes()
    try:
        pack = json.loads(content or b"")
    except ValueError:
        return None
    return pack if isinstance(pack, dict) and pack.get("format") == PACK_FORMAT else None


def _shard_names(pack: Mapping[str, object], split: str) -> list[str]:
    """List the tars of a split, as paths below the packed folder."""
    side = pack.get(split)
    shards = side.get("shards") if isinstance(side, dict) else None
    return [shard["name"] for shard in shards] if isinstance(shards, list) else []


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - Path raises for a name too long to be a path


def _explain_missing(pattern: str, root: Path) -> str:
    if _exists(str(root)):
        return f"no file matches {pattern}"
    missing = Path(pattern)
    while not _exists(str(missing.parent)):
        missing = missing.parent
    siblings = []
    with suppress(OSError):
        siblings = [path.name for path in missing.parent.iterdir()]
    near = nearest(missing.name, siblings)
    suggestion = f": did you mean {missing.parent / near}?" if near else ""
    return f"{pattern} does not exist{suggestion}"
