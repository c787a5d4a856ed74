"""What the user wrote after ``data.train``, ``data.val`` or ``images``, turned into an index."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from glob import glob
from itertools import product
from pathlib import Path

from vqtrain.data.demo import Role, demo_shards
from vqtrain.data.index import ImageIndex, hold_out
from vqtrain.data.scan import PICTURE_SUFFIXES, index_pictures, is_hidden, is_picture, scan_tar
from vqtrain.errors import DataError

_LOOKED_FOR = f"tars and pictures ({' '.join(sorted(PICTURE_SUFFIXES))})"


def training_and_validation(
    train: str | Sequence[str], val: str | Sequence[str]
) -> tuple[ImageIndex, ImageIndex]:
    """Find the images to train on and those to validate on.

    Args:
        train: IMAGES, as for ``open_images``.
        val: IMAGES, or ``auto``: the demo's own held-out pictures for ``demo``, for all else a
            share of ``train`` that is then not trained on.

    Raises:
        DataError: If images are missing or too few.
    """
    training = open_images(train, role="training")
    if val != "auto":
        return training, open_images(val, role="validation")
    if train in ("demo", ["demo"]):
        return training, open_images("demo", role="validation")
    return hold_out(training)


def open_images(images: str | Sequence[str], *, role: Role) -> ImageIndex:
    """Index images, whatever form they come in; which one it is, is found by looking.

    The word ``demo``; a folder of pictures, or of tars if it holds no picture; a picture; a tar; a
    glob; a brace list such as ``shards-{000..099}.tar``. A path that exists is never read as a glob
    or a brace list.

    Args:
        images: One such source, or several that are joined in the order given.
        role: Which of its pictures ``demo`` gives.

    Raises:
        DataError: If a source does not exist, holds no images or cannot be read.
    """
    sources = [images] if isinstance(images, str) else images
    if not sources or "" in sources:
        raise DataError("no images are named: give demo, a folder, a glob or tars")
    return ImageIndex.concatenate([_open_source(source, role) for source in sources])


def expand_braces(pattern: str) -> list[str]:
    """Write out ``{a,b}`` and ``{000..099}`` as a shell does; other braces stay as they are.

    Example:
        >>> expand_braces("{train,val}-{08..10}.tar")[:4]
        ['train-08.tar', 'train-09.tar', 'train-10.tar', 'val-08.tar']
    """
    pieces = [_alternatives(piece) for piece in re.split(r"(\{[^{}]*\})", pattern)]
    expanded = ["".join(choice) for choice in product(*pieces)]
    if expanded == [pattern]:
        return expanded
    # Once more for what stood inside other braces.
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


def _open_source(source: str, role: Role) -> ImageIndex:
    if source == "demo":
        files = [Path(shard) for shard in demo_shards(role)]
        return _open_files(files, root=Path())
    if re.match(r"pipe:|[a-z][a-z0-9+.-]*://", source):
        raise DataError(f"{source} is not on this machine: this version reads local files only")
    literal = os.path.expanduser(source)  # noqa: PTH111 - Path raises for an unknown ~user
    patterns = [literal] if _exists(literal) else expand_braces(literal)
    index = ImageIndex.concatenate([_open_pattern(pattern) for pattern in patterns])
    if len(index) == 0:
        raise DataError(f"{source} holds no images: looked for {_LOOKED_FOR}")
    return index


def _open_pattern(pattern: str) -> ImageIndex:
    """Open a path that exists, or else all that a glob finds."""
    path = Path(pattern)
    if os.path.isdir(pattern):  # noqa: PTH112 - as _exists
        return _open_files(_files_below(path), root=path)
    if _exists(pattern):
        if not is_picture(path) and not _is_tar(path):
            raise DataError(f"{path} is neither a tar nor a picture: looked for {_LOOKED_FOR}")
        return _open_files([path], root=path.parent)
    root = Path(re.split(r"[^/]*[*?[]", pattern, maxsplit=1)[0])
    # pathlib's glob takes no absolute pattern.
    matches = [Path(match) for match in glob(pattern, recursive=True)]  # noqa: PTH207
    if not matches:
        raise DataError(_explain_missing(pattern, root))
    files = {
        file
        for match in matches
        for file in (_files_below(match) if match.is_dir() else [match])
        if is_picture(file) or _is_tar(file)
    }
    return _open_files(sorted(files), root=root)


def _open_files(files: Sequence[Path], *, root: Path) -> ImageIndex:
    pictures = [file for file in files if is_picture(file)]
    tars = [file for file in files if not is_picture(file)]
    return ImageIndex.concatenate(
        [index_pictures(pictures, root=root), *(scan_tar(tar) for tar in tars)]
    )


def _files_below(folder: Path) -> list[Path]:
    """List the pictures below a folder, or its tars if it has no pictures; sorted."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error

    pictures, tars = [], []
    entered = set()  # a link back to a parent would otherwise be followed without end
    for parent, children, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(parent)
        if real in entered:
            children.clear()
            continue
        entered.add(real)
        children[:] = sorted(child for child in children if not is_hidden(child))
        for name in names:
            if is_picture(name) and not is_hidden(name):
                pictures.append(Path(parent, name))
            elif _is_tar(Path(name)) and not is_hidden(name):
                tars.append(Path(parent, name))
    return sorted(pictures or tars)


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == ".tar"


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
    near = get_close_matches(missing.name, siblings, n=1)
    suggestion = f": did you mean {missing.parent / near[0]}?" if near else ""
    return f"{pattern} does not exist{suggestion}"
