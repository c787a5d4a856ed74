"""Batches to encode: images with the other fields of their samples."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from itertools import accumulate
from typing import final

import numpy as np
import torch
from torch.utils.data import Dataset

from vqtrain.data.decoding.base import Transform
from vqtrain.data.loading.batches import Batch, ValidationBatches
from vqtrain.data.shards.writer import Fields
from vqtrain.data.sources.fields import find_fields
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import BadSampleError

# The field of the ids. A source's field with this name is renamed.
IDS_FIELD = "npy"


@final
@dataclass(eq=False)
class TokenBatches(Dataset[Batch]):
    """Images in the order of an index, each with its fields.

    All batches are full, so that each image is always encoded with the same others. A batch is
    padded with its last image, masked; a bad image is masked too.

    Attributes:
        images: All images, in the order of the batches.
        counts: Images of each batch, at most ``batch_size``.
        transform: How images become arrays.
        batch_size: Images per batch.
        keeps_whole: Whether images stay as large as they are; then a batch is one image.
    """

    images: SampleIndex
    _: KW_ONLY
    counts: Sequence[int]
    transform: Transform
    batch_size: int
    keeps_whole: bool = False

    def __post_init__(self) -> None:
        """Look for the fields."""
        self._ends = list(accumulate(self.counts))
        self._fields = find_fields(self.images)

    def __getitem__(self, number: int) -> Batch:
        """Load a batch; its ``fields`` are those of the images without padding.

        Raises:
            DataError: If a server does not answer.
        """
        end = self._ends[number]
        image_ids = range(end - self.counts[number], end)
        part = self.images.select(np.array(image_ids))
        if self.keeps_whole:
            batch = self._whole(image_ids[0])
        else:
            batch = ValidationBatches(part, transform=self.transform, batch_size=self.batch_size)[0]
        for position, image_id in enumerate(image_ids):
            fields: Fields = ()
            if batch.mask[position]:
                try:
                    fields = self._read_fields(image_id)
                except BadSampleError as error:
                    batch.mask[position] = False
                    batch.faults.append(self.images.fault(image_id, str(error)))
            batch.fields.append(fields)
        mine = [self.images.fault(image_id, "") for image_id in image_ids]
        batch.faults += [f for f in self._fields.faults if replace(f, reason="") in mine]
        return batch

    def _whole(self, image_id: int) -> Batch:
        """Load one image with all its pixels."""
        faults = []
        try:
            pixels = self.transform.decode_whole(self.images.read(image_id))
        except BadSampleError as error:
            pixels = torch.zeros(self.transform.channels, *self.transform.sample_size)
            faults.append(self.images.fault(image_id, str(error)))
        return Batch(
            samples=pixels[None],
            mask=torch.tensor([not faults]),
            keys=[self.images.key(image_id)],
            faults=faults,
        )

    def _read_fields(self, image_id: int) -> Fields:
        index = self._fields.index
        found = [(index.key(i), index.read(i)) for i in self._fields.of(image_id)]
        return tuple((f"2.{name}" if name == IDS_FIELD else name, some) for name, some in found)
