"""Images inside a page: lossless, each once, and limited in their bytes."""

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vqtrain.reports.blocks import Block, Item, Layer, Text, Viewer
from vqtrain.shapes import ImageSize, sides

RGB = UInt8[np.ndarray, "_ _ 3"]
ORIGINAL, RECONSTRUCTION, IDS = "original", "reconstruction", "ids"

# Larger images are cropped to their middle: a whole one would not fit into a page.
MOST_SIDE = 768
# Larger files are not opened: they would fill the memory.
MOST_PIXELS = 2**26


@final
class PageImages:
    """The images of a page, each once.

    Attributes:
        uris: The images as data URIs.
    """

    def __init__(self) -> None:
        self.uris: list[str] = []
        self._numbers: dict[str, int] = {}

    def size_of(self, uris: Sequence[str]) -> int:
        """Count the bytes that images would add."""
        return sum(len(uri) for uri in set(uris) if uri not in self._numbers)

    def number(self, uri: str) -> int:
        """Add an image, and return its number."""
        if uri not in self._numbers:
            self._numbers[uri] = len(self.uris)
            self.uris.append(uri)
        return self._numbers[uri]


@final
class Budget:
    """A part of a page's images, with its own limit.

    Args:
        images: Those of the page.
        limit: Bytes that this part may add.

    Attributes:
        left_out: Groups of images that did not fit.
    """

    def __init__(self, images: PageImages, limit: int) -> None:
        self._images, self._room = images, limit
        self.left_out = 0

    def add(self, images: Sequence[RGB]) -> list[int] | None:
        """Add images that belong together, all or none; return their numbers if they fit.

        Once some did not fit, no others are tried, because encoding takes time.
        """
        if self.left_out:
            self.left_out += 1
            return None
        uris = [encode(middle(image)) for image in images]
        size = self._images.size_of(uris)
        if size > self._room:
            self.left_out += 1
            return None
        self._room -= size
        return [self._images.number(uri) for uri in uris]

    def item(self, name: str, versions: Mapping[str, RGB], *, caption: str = "") -> list[Item]:
        """Add the versions of an image if they fit; the caption is of the reconstruction.

        Returns:
            A list of one item, or an empty list.
        """
        numbers = self.add(list(versions.values()))
        if numbers is None:
            return []
        layers = [
            Layer(name=each, image=number, caption=caption if each == RECONSTRUCTION else "")
            for each, number in zip(versions, numbers, strict=True)
        ]
        return [Item(name=name, layers=layers, caption=caption)]

    def viewer(self, label: str, items: Sequence[Item], *, right: str) -> list[Block]:
        """Make a viewer, with a note on the images that did not fit."""
        blocks: list[Block] = [Viewer(label=label, items=items, right=right)] if items else []
        if self.left_out:
            count = (
                f"{self.left_out} {'more ' if items else ''}{'are' if self.left_out > 1 else 'is'}"
            )
            text = f"{label}: {count} left out to keep this page small."
            blocks.append(Text(text=text, tone="note"))
        return blocks


def read_image(file: Path) -> RGB | None:
    """Read an image as color; None if it is damaged or too large."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # Pillow's
        return None


def to_webp(image: RGB) -> bytes:
    """Return the file of an image, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "WEBP", lossless=True, exact=True)
    return buffer.getvalue()


def encode(image: RGB) -> str:
    """Return an image as a data URI, without loss."""
    return f"data:image/webp;base64,{base64.b64encode(to_webp(image)).decode()}"


def middle(image: RGB, most: int = MOST_SIDE) -> RGB:
    """Crop the middle of an image with a side larger than ``most``."""
    height, width, _ = image.shape
    top, left = max(0, (height - most) // 2), max(0, (width - most) // 2)
    return image[top : top + most, left : left + most]


def evenly(count: int, most: int) -> list[int]:
    """Choose at most ``most`` of ``count`` indices, with the first and the last.

    Example:
        >>> evenly(10, 4), evenly(3, 4), evenly(5, 1), evenly(0, 4)
        ([0, 3, 6, 9], [0, 1, 2], [4], [])
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def split_strip(strip: RGB, size: ImageSize) -> tuple[list[RGB], list[RGB]]:
    """Split a strip of images, originals above reconstructions, into these two rows.

    Args:
        strip: The strip.
        size: Of each image; its aspect ratio counts.
    """
    height, width = sides(size)
    rows_px = strip.shape[0] // 2
    columns_px = max(1, rows_px * width // height)
    lefts = range(0, strip.shape[1] - columns_px + 1, columns_px)
    rows = [
        [strip[top : top + rows_px, left : left + columns_px] for left in lefts]
        for top in (0, rows_px)
    ]
    return rows[0], rows[1]
