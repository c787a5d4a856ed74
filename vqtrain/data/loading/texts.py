"""The texts of images: their fields ``.txt``."""

from dataclasses import dataclass
from typing import final

import numpy as np

from vqtrain.data.remote.urls import is_url
from vqtrain.data.sources.fields import find_fields
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.pipes import Stream
from vqtrain.errors import BadSampleError, DataError

FIELD = b"txt"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """Where the texts are.

    Attributes:
        index: That of image i is at position i.
    """

    index: SampleIndex

    def read(self, image_id: int) -> str:
        """Read the text of an image, without white space around it.

        Raises:
            BadSampleError: If it cannot be read, is no UTF-8, or is empty.
        """
        try:
            text = self.index.read(image_id).decode().strip()
        except UnicodeDecodeError as error:
            raise BadSampleError(f"its .txt is no UTF-8, at byte {error.start}") from error
        if not text:
            raise BadSampleError("its .txt is empty")
        return text


def find_texts(images: SampleIndex | Stream, what: str) -> Texts:
    """Find the member ``NAME.txt`` of a tar or the file next to each image.

    Args:
        images: Those that need one each.
        what: The key that names them, for messages.

    Raises:
        DataError: If one has none, or they are read from a server or in sequence.
    """
    if isinstance(images, Stream) or any(map(is_url, images.paths)):
        raise DataError(
            f"{what}: the texts of images are read from local folders and tars alone: copy the tars"
        )
    fields = find_fields(images)
    positions = np.flatnonzero(fields.index.keys == FIELD)
    owners = np.searchsorted(fields.first, positions, side="right") - 1
    missing = np.setdiff1d(np.arange(len(images)), owners)
    if len(missing):
        first = int(missing[0])
        raise DataError(
            f"{what}: {len(missing):,} of {len(images):,} images have no .txt, the first is "
            f"{images.key(first)!r} of {images.path(first)}"
        )
    return Texts(index=fields.index.select(positions))
