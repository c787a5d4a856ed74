"""Pictures inside a page: lossless, each once, and no more bytes than a page may have."""

import base64
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Picture = UInt8[np.ndarray, "_ _ 3"]

# Of larger pictures the middle is shown, pixel by pixel: a whole one would not fit into a page.
MOST_SIDE = 768
# Larger files are not opened: they would fill the memory.
MOST_PIXELS = 2**26


@final
class Album:
    """The pictures of a page."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._numbers: dict[str, int] = {}

    def shelf(self, limit: int) -> "Shelf":
        """Return a place for pictures of at most ``limit`` bytes, as they are in the page."""
        return Shelf(self, limit)

    def size_of(self, uris: Sequence[str]) -> int:
        """Count the bytes that pictures would add."""
        return sum(len(uri) for uri in set(uris) if uri not in self._numbers)

    def number(self, uri: str) -> int:
        """Take a picture in, and return its number."""
        if uri not in self._numbers:
            self._numbers[uri] = len(self.uris)
            self.uris.append(uri)
        return self._numbers[uri]


@final
class Shelf:
    """A part of an album, with a limit of its own.

    Attributes:
        left_out: Groups of pictures that did not fit.
    """

    def __init__(self, album: Album, limit: int) -> None:
        self._album, self._room = album, limit
        self.left_out = 0

    def add(self, pictures: Sequence[Picture]) -> list[int] | None:
        """Add pictures that belong together, all or none; return their numbers if they fit.

        Once some did not fit, no others are tried: to encode them takes time.
        """
        if self.left_out:
            self.left_out += 1
            return None
        uris = [encode(middle(picture)) for picture in pictures]
        size = self._album.size_of(uris)
        if size > self._room:
            self.left_out += 1
            return None
        self._room -= size
        return [self._album.number(uri) for uri in uris]


def read_picture(file: Path) -> Picture | None:
    """Read a picture as color; None if it is damaged or too large."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return None
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow's
        return None


def encode(picture: Picture) -> str:
    """Return a picture as a data URI, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "WEBP", lossless=True, exact=True)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def middle(picture: Picture, most: int = MOST_SIDE) -> Picture:
    """Cut the middle out of a picture that is larger than ``most`` a side."""
    height, width, _ = picture.shape
    top, left = max(0, (height - most) // 2), max(0, (width - most) // 2)
    return picture[top : top + most, left : left + most]


def evenly(count: int, most: int) -> list[int]:
    """Choose at most ``most`` of ``count`` places, with the first and the last.

    Example:
        >>> evenly(10, 4), evenly(3, 4), evenly(5, 1), evenly(0, 4)
        ([0, 3, 6, 9], [0, 1, 2], [4], [])
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def cut_strip(strip: Picture) -> tuple[list[Picture], list[Picture]]:
    """Cut a picture of squares, originals above reconstructions, into these two rows."""
    side = strip.shape[0] // 2
    lefts = range(0, strip.shape[1] - side + 1, side)
    rows = [[strip[top : top + side, left : left + side] for left in lefts] for top in (0, side)]
    return rows[0], rows[1]
