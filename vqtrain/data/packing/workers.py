"""Work on each of many images, in worker processes and in order."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Dataset

from vqtrain.data.loading.loaders import Loader
from vqtrain.data.sources.index import SampleIndex

# What a worker gets at once, at most, but for one larger image: some MB, and a second of work.
CHUNK_SIZE = 16
CHUNK_BYTES = 8_000_000

Result = TypeVar("Result")


@final
@dataclass(frozen=True, eq=False)
class _Chunks(Dataset[list[Result]]):
    function: Callable[[int], Result]
    image_ids: Int64[np.ndarray, " m"]
    bounds: Sequence[int]

    def __getitem__(self, number: int) -> list[Result]:
        begin, end = self.bounds[number : number + 2]
        return [self.function(image_id) for image_id in self.image_ids[begin:end].tolist()]


def map_images(
    function: Callable[[int], Result],
    image_ids: Int64[np.ndarray, " m"],
    images: SampleIndex,
    *,
    num_workers: int,
) -> Generator[Result]:
    """Apply a function to some images; yield the results in their order.

    Args:
        function: Called with the position of an image in ``images``.
        image_ids: Positions of the images.
        images: Tells how large they are.
        num_workers: Processes; 0 works in this one.

    Raises:
        DataError: As the function raises it.
    """
    bounds, total = [0], 0
    for position, size in enumerate(images.sizes[image_ids].tolist()):
        is_full = position - bounds[-1] == CHUNK_SIZE or total + size > CHUNK_BYTES
        if is_full and position > bounds[-1]:
            bounds.append(position)
            total = 0
        total += size
    bounds.append(len(image_ids))
    numbers = range(len(bounds) - 1 if len(image_ids) else 0)
    chunks = _Chunks(function, image_ids, bounds)
    for results in Loader(chunks, numbers=numbers, num_workers=num_workers):
        yield from results
