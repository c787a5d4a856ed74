"""From the value of ``data.train``, ``data.val``, ``images`` and their like to an index."""

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

from vqtrain.data.media import IMAGE, VIDEO, Media
from vqtrain.data.remote.files import find
from vqtrain.data.remote.urls import SCHEMES, RemoteFile, is_url
from vqtrain.data.sources.demo import Role, demo_shards
from vqtrain.data.sources.folders import Listing, is_sample_file, list_folder, owner_of
from vqtrain.data.sources.index import SampleIndex, hold_out, make_index
from vqtrain.data.sources.packs import has_validation, packed_shards
from vqtrain.data.sources.pipes import Stream, spool
from vqtrain.data.sources.scan import (
    SYSTEM_FOLDERS,
    index_files,
    is_hidden,
    is_tar,
    scan_tar,
)
from vqtrain.errors import ConfigError, DataError, naming, require
from vqtrain.ranges import nearest

# Requests at the same time: a thousand remote tars open in seconds.
THREADS = 16
# Of a source; more would be a typo.
MAX_WEIGHT = 1_000
# Of what samples are made besides their own files: an image is a clip of one frame.
_MIXED: Mapping[Media, Sequence[Media]] = {VIDEO: (VIDEO, IMAGE)}
# IMAGES, VIDEOS or SOUNDS: a source, a source with a weight, or several.
Source = str | Mapping[str, object]
Sources = Source | Sequence[Source]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def training_and_validation(
    train: Sources, val: Sources, media: Media = IMAGE
) -> tuple[SampleIndex | Stream, SampleIndex]:
    """Find the samples to train on and those to validate on.

    Pipes (``pipe:``) cannot seek; they are read in sequence, and their output is not kept.

    Args:
        train: Sources, as for ``open_samples``.
        val: Sources, or ``auto``: the held-out samples of ``demo`` and of packed folders, otherwise
            a share of ``train`` that is then not trained on.
        media: What the samples are of.

    Raises:
        ConfigError: If a weight is invalid, or pipes are combined with weights or other sources.
        DataError: If samples are missing or too few.
    """
    if _has_pipe(train):
        stream = _open_stream(train, media)
        if val == "auto":
            raise ConfigError(
                f"data.val=auto cannot hold out {media.noun}s of a pipe: name {media.noun}s to "
                "validate on"
            )
        return stream, open_samples(val, media, role="validation", key="data.val")
    return open_both(train, val, media, keys=("data.train", "data.val"))


def open_both(
    train: Sources, val: Sources, media: Media = IMAGE, *, keys: tuple[str, str]
) -> tuple[SampleIndex, SampleIndex]:
    """Find samples to train on and to validate on, all of which can be read in any order.

    Args:
        train: Sources, as for ``open_samples``.
        val: Sources or ``auto``, as for ``training_and_validation``.
        media: What the samples are of.
        keys: The config keys that name them, for messages.

    Raises:
        ConfigError: If a weight is invalid.
        DataError: If samples are missing or too few.
    """
    training = open_samples(train, media, role="training", key=keys[0])
    if val != "auto":
        validation = open_samples(val, media, role="validation", key=keys[1])
        require(
            not validation.stills.any(),
            f"{keys[1]} must be of clips: images as clips of one frame are for training alone",
        )
        return training, validation
    only = train
    if not isinstance(train, str | Mapping) and len(train) == 1:
        only = train[0]
    if isinstance(only, str) and (only == "demo" or has_validation(only)):
        return training, open_samples(only, media, role="validation", key=keys[0])
    if not training.stills.any():
        return hold_out(training, key=keys[1])
    clips, validation = hold_out(training.clips, key=keys[1])
    stills = training.select(np.flatnonzero(training.stills))
    return SampleIndex.concatenate([clips, stills]), validation


def open_samples(
    sources: Sources, media: Media = IMAGE, *, role: Role, key: str | None = None
) -> SampleIndex:
    """Index samples of any source; the kind of source is detected automatically.

    The word ``demo``; a folder of samples, or of tars if it holds no sample; a folder of ``vqtrain
    pack``; a file; a tar; a glob; a brace list such as ``shards-{000..099}.tar``; the URL of one
    of those (http, https, s3, gs, hf); ``pipe:`` and a command that writes a tar. A path that
    exists is never read as a glob or a brace list.

    Args:
        sources: A source; or ``{images: ..., weight: 2}``, which is seen twice as often; or a list
            of both, joined in this order. Among clips such images are clips of one frame.
        media: What the samples are of.
        role: Which samples of ``demo`` and packed folders to use.
        key: The config key that names the sources, for messages; None for that of ``media``.

    Raises:
        ConfigError: If a weight is invalid.
        DataError: If a source does not exist, holds no samples or cannot be read.
    """
    with naming(media.key if key is None else key):
        return _open(sources, media, role)


def _open(sources: Sources, media: Media, role: Role) -> SampleIndex:
    sources = [sources] if isinstance(sources, str | Mapping) else sources
    if not sources or "" in sources:
        raise DataError("a source is empty: name demo, a folder, a glob or tars")
    return SampleIndex.concatenate(
        [
            _open_source(source, media, role)
            if isinstance(source, str)
            else _open_weighted(source, media, role)
            for source in sources
        ]
    )


def looked_for(media: Media) -> str:
    """Say which files are taken."""
    frames = " and folders of frames" if media is VIDEO else ""
    return f"tars and {media.noun}s ({' '.join(sorted(media.suffixes))}){frames}"


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


def _open_weighted(item: Mapping[str, object], media: Media, role: Role) -> SampleIndex:
    known = [kind for kind in _MIXED.get(media, (media,)) if set(item) == {kind.key, "weight"}]
    if not known:
        keys = " or ".join(kind.key for kind in _MIXED.get(media, (media,)))
        raise ConfigError(
            f"a source with a weight has the keys {keys} and weight, got {dict(item)!r}"
        )
    (kind,) = known
    sources, weight = item[kind.key], item["weight"]
    if (
        isinstance(weight, bool)
        or not isinstance(weight, int | float)
        or not 0 < weight <= MAX_WEIGHT
    ):
        raise ConfigError(
            f"a weight must be a number above 0 and at most {MAX_WEIGHT}, got {weight!r} for "
            f"{sources!r}"
        )
    if not isinstance(sources, str | Mapping | Sequence):
        raise ConfigError(
            f"a source with a weight must name one source or several, got {sources!r}"
        )
    index = _open(sources, kind, role)
    index = replace(index, weights=index.weights * np.float32(weight), media=media)
    return index if kind is media else replace(index, stills=np.ones(len(index), bool))


def _has_pipe(sources: object) -> bool:
    if isinstance(sources, str):
        return sources.startswith("pipe:")
    if isinstance(sources, Mapping):
        return any(map(_has_pipe, sources.values()))
    return isinstance(sources, Sequence) and any(map(_has_pipe, sources))


def _open_stream(sources: Sources, media: Media) -> Stream:
    found = [sources] if isinstance(sources, str | Mapping) else sources
    pipes = [source for source in found if isinstance(source, str) and _has_pipe(source)]
    if len(pipes) < len(found):
        raise ConfigError(
            f"a pipe is read in sequence, so it can have no weight and no other {media.noun}s: "
            f"data.train must name pipes alone, got {sources!r}"
        )
    commands = [part for pipe in pipes for part in expand_braces(pipe.removeprefix("pipe:"))]
    if not all(command.strip() for command in commands):
        raise ConfigError("pipe: must be followed by a command that writes a tar")
    return Stream(commands=tuple(commands), media=media)


def _open_source(source: str, media: Media, role: Role) -> SampleIndex:
    if source == "demo":
        files, root = [Path(shard) for shard in demo_shards(role, media)], ""
        return _index(files, media, root=root)
    if source.startswith("pipe:"):
        # The output is kept in a file, which is indexed like any other tar.
        tars = [spool(command) for command in expand_braces(source.removeprefix("pipe:"))]
        index = _index(tars, media, root="")
    elif is_url(source):
        index = _join(_in_threads(lambda url: _open_url(url, media, role), expand_braces(source)))
    elif re.match(r"[a-z][a-z0-9+.-]*://", source):
        raise DataError(f"{source}: URLs may begin with {', '.join(f'{s}://' for s in SCHEMES)}")
    else:
        literal = os.path.expanduser(source)  # noqa: PTH111 - Path raises for an unknown ~user
        patterns = [literal] if _exists(literal) else expand_braces(literal)
        index = _join(_in_threads(lambda pattern: _open_pattern(pattern, media, role), patterns))
    if len(index) == 0:
        if index.faults:
            fault = index.faults[0]
            raise DataError(f"{source} holds no {media.noun}s: {fault.shard}: {fault.reason}")
        raise DataError(f"{source} holds no {media.noun}s: looked for {looked_for(media)}")
    return index


def _open_url(url: str, media: Media, role: Role) -> SampleIndex:
    """Open a remote file, a packed folder, a folder, or all files that match a glob."""
    name = RemoteFile(url, 0, "").name
    is_glob = re.search(r"[*?[]", name) is not None
    is_file = not is_glob and (media.owns(name) or is_tar(name))
    if not is_file and not is_glob:
        shards = packed_shards(url, media, role)
        if shards:
            return _join(_in_threads(lambda shard: _open_url(shard, media, role), shards))
    files = find(url)
    if not files and is_glob:
        raise DataError(f"no file matches {url}")
    if not is_file:
        root = re.split(r"[^/]*[*?[]", url, maxsplit=1)[0].rstrip("/")
        taken, others = _usable(files, media, root)
        return _join([_index(taken, media, root=root), make_index(others=others)])
    return _index(files, media, root=url.rpartition("/")[0])


def _usable(
    files: Sequence[RemoteFile], media: Media, root: str
) -> tuple[Sequence[RemoteFile], Mapping[str, int]]:
    """Keep the samples, or the tars if there are no samples; and count the others by suffix."""
    seen = [
        file
        for file in files
        if not any(map(is_hidden, PurePosixPath(file.name.removeprefix(root)).parts))
    ]
    taken = [f for f in seen if media.owns(f.name)] or [f for f in seen if is_tar(f.name)]
    names = {file.name for file in taken}
    stems = {os.path.splitext(name)[0] for name in names}  # noqa: PTH122 - of a URL
    others = (f.name for f in seen if f.name not in names and owner_of(f.name, stems) is None)
    return taken, Counter(PurePosixPath(name).suffix.lower() for name in others)


def _open_pattern(pattern: str, media: Media, role: Role) -> SampleIndex:
    """Open a path that exists, otherwise all files that match a glob."""
    path = Path(pattern)
    if os.path.isdir(pattern):  # noqa: PTH112 - as _exists
        shards = packed_shards(pattern, media, role)
        if shards:
            return _join(_in_threads(lambda shard: _open_pattern(shard, media, role), shards))
        return _index_listing(list_folder(path, media), root=pattern)
    if _exists(pattern):
        if not is_tar(path) and not is_sample_file(path, media):
            kind = "an image" if media is IMAGE else f"a {media.noun}"
            raise DataError(f"{path} is neither a tar nor {kind}: looked for {looked_for(media)}")
        return _index([path], media, root=str(path.parent))
    root = re.split(r"[^/]*[*?[]", pattern, maxsplit=1)[0]
    # pathlib's glob takes no absolute pattern.
    matches = [Path(match) for match in glob(pattern, recursive=True)]  # noqa: PTH207
    if not matches:
        raise DataError(_explain_missing(pattern, Path(root)))
    below = [m for m in matches if SYSTEM_FOLDERS.isdisjoint(m.relative_to(root).parts)]
    found = Listing(media)
    files = []
    for match in below:
        if match.is_dir():
            found.extend(list_folder(match, media))
        else:
            files.append(match)
    for _, siblings in groupby(sorted(files), key=lambda file: file.parent):
        found.add(siblings)
    return _index_listing(found, root=root)


def _index_listing(found: Listing, *, root: str) -> SampleIndex:
    taken = {*found.samples, *found.tars}
    others = Counter(path.suffix.lower() for path in found.others - taken)
    rest = make_index(faults=dict.fromkeys(found.faults), others=others)
    return _join([_index(sorted(taken), found.media, root=root), rest])


def _index(files: Sequence[Path | RemoteFile], media: Media, *, root: str) -> SampleIndex:
    samples: list[Path | RemoteFile] = []
    tars: list[Path | RemoteFile] = []
    for file in files:
        (tars if is_tar(file.name) else samples).append(file)
    scanned = _in_threads(lambda tar: scan_tar(tar, media), tars)
    return replace(_join([index_files(samples, root=root), *scanned]), media=media)


def _join(indexes: Sequence[SampleIndex]) -> SampleIndex:
    return indexes[0] if len(indexes) == 1 else SampleIndex.concatenate(indexes)


def _in_threads(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Apply a function in several threads, which mostly wait; return the results in order."""
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(THREADS, len(items))) as pool:
        return list(pool.map(work, items))  # at the first error it cancels what waits


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
