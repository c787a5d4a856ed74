"""Folders of frames: each is a clip, which is read as a tar of its frames."""

import io
import os
import re
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path

from vqtrain.data.media import IMAGE, VIDEO

# Where the path of a sample ends so, it is a folder.
FOLDER_END = os.sep


def are_frames(names: Collection[str], children: Collection[str]) -> bool:
    """Tell whether what is in a folder, but for what is hidden, are the frames of a clip.

    Args:
        names: Its files.
        children: The folders in it.
    """
    return bool(names) and not children and all(map(_is_frame, names))


def list_frames(folder: str | Path) -> Sequence[os.DirEntry[str]]:
    """List the frames of a clip in their order: numbers in names count, so 2 is before 10.

    Raises:
        OSError: If the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(filter(lambda entry: _is_frame(entry.name), entries), key=_place)


def read_frames(folder: str | Path) -> tuple[bytes, int]:
    """Read the frames of a clip.

    Returns:
        A tar of them, equal for equal frames, and how many bytes the frames have without it.

    Raises:
        OSError: If one cannot be read.
    """
    file, total = io.BytesIO(), 0
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for entry in list_frames(folder):
            content = Path(entry.path).read_bytes()
            member = tarfile.TarInfo(entry.name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
            total += len(content)
    return file.getvalue(), total


def _is_frame(name: str) -> bool:
    return IMAGE.owns(name) and not VIDEO.owns(name) and not name.startswith(".")


def _place(entry: os.DirEntry[str]) -> tuple[list[tuple[int, str]], str]:
    pieces = re.findall(r"\d+|\D+", entry.name)
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces], entry.name
