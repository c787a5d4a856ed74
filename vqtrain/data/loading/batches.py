"""Batches by their number, of samples of any number of axes, and those of indexed images.

A data set here is a function from a batch's number to the batch, so that the order of batches is
the same with any number of workers, and a run can continue at any position.
"""

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import final

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from vqtrain.data.decoding.base import Transform
from vqtrain.data.faults import Fault
from vqtrain.data.loading.bucket_order import BucketOrder
from vqtrain.data.loading.buckets import Buckets
from vqtrain.data.loading.order import EndlessOrder, sample_generator
from vqtrain.data.loading.texts import Texts
from vqtrain.data.media import Media
from vqtrain.data.settings.base import DataSettings
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import BadSampleError, DataError, TooShortError
from vqtrain.shapes import Mask

# If this many images in a row cannot be read, something else is wrong.
MAX_BAD_IN_A_ROW = 100
# If so many that are far from each other cannot be read, it is their kind or a setting.
MAX_TRIED = 8


@final
@dataclass(kw_only=True, eq=False)  # not frozen: Lightning's float64 refuses frozen dataclasses
class Batch:
    """A batch of samples.

    Attributes:
        samples: uint8 in 0..255, not yet scaled, a quarter of the bytes of float32; with
            ``data.range`` float32 in the files' own units. An image is [c, h, w], a clip
            [c, t, h, w], a sound [c, t].
        mask: False for padding, which must not be counted.
        keys: Names of the samples.
        fields: Name and bytes of the other fields of each sample, where a data set has them.
        texts: The text of each sample, where the run needs them.
        faults: Samples that could not be read and were skipped.
        cursor: Where the reader of a stream is after the batch, as plain numbers; None for
            indexed images, whose order needs no cursor.
    """

    samples: Shaped[Tensor, "b c *size"]
    mask: Mask
    keys: list[str]
    fields: list[tuple[tuple[str, bytes], ...]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    cursor: tuple[int, ...] | None = None

    def pin_memory(self) -> "Batch":
        """Copy to page-locked memory; called by the loader."""
        return replace(self, samples=self.samples.pin_memory(), mask=self.mask.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Copy to a device, with the arguments of ``Tensor.to``."""
        return replace(
            self,
            samples=self.samples.to(device, non_blocking=non_blocking),
            mask=self.mask.to(device, non_blocking=non_blocking),
        )


def all_bad(last: Fault, media: Media) -> DataError:
    """Say that ``MAX_BAD_IN_A_ROW`` samples in a row were bad, with the last of them."""
    return DataError(
        f"{MAX_BAD_IN_A_ROW} {media.noun}s in a row cannot be read, the last one is {last.key!r} "
        f"in {last.shard}: {last.reason}"
    )


def check_some(index: SampleIndex, transform: Transform, *, where: str = "") -> None:
    """Try some samples before work begins, evenly spread over all.

    Args:
        index: All samples.
        transform: What is done with them.
        where: Where they are from, for the message.

    Raises:
        DataError: If none of them can be used.
    """
    tried = np.linspace(0, len(index) - 1, min(MAX_TRIED, len(index))).astype(int).tolist()
    bad: list[tuple[int, BadSampleError]] = []
    for image_id in tried:
        try:
            transform.decode(index.read(image_id), None)
        except BadSampleError as error:
            bad.append((image_id, error))
        else:
            return
    which, (last, reason) = "last one", bad[-1]
    short = [(e.length, i, e) for i, e in bad if isinstance(e, TooShortError)]
    if short:
        which, (_, last, reason) = "longest", max(short, key=lambda found: found[0])
    raise DataError(
        f"none of {len(tried)} {transform.media.noun}s{where} that were tried can be used, the "
        f"{which} is {index.key(last)!r}: {reason}"
    )


def stack(samples: Sequence[Shaped[Tensor, " c *size"]]) -> Shaped[Tensor, "b c *size"]:
    """Stack samples into a batch with channels last in memory, as in each sample."""
    # In a worker, torch's collate writes straight into shared memory.
    batch: Tensor = default_collate([sample.movedim(0, -1) for sample in samples])
    return batch.movedim(-1, 1)


@final
@dataclass(eq=False)
class TrainingBatches(Dataset[Batch]):
    """Endless shuffled batches; number m is the m-th of this process from ``start``.

    Position p of the endless order is sample i of batch m on this rank, where
    p = start + (m * world_size + rank) * batch_size + i. With buckets the batch is number
    p // batch_size of ``BucketOrder``. A bad image is replaced by another one, drawn with the
    random numbers of its position.

    Attributes:
        index: Images to train on.
        settings: The ``data`` group.
        seed: Seed of the run.
        rank: Number of this process.
        world_size: Number of processes.
        ranks_per_node: Processes on each machine, which read ahead for each other.
        start: Samples that the run has seen so far, over all ranks.
        buckets: The sizes of the images, if they are of several.
        texts: Those of the images, if they are wanted.
    """

    index: SampleIndex
    _: KW_ONLY
    settings: DataSettings
    seed: int
    rank: int
    world_size: int
    ranks_per_node: int
    start: int
    buckets: Buckets | None = None
    texts: Texts | None = None

    def __post_init__(self) -> None:
        """Begin an order."""
        self._transform, self._batch_size = self.settings.transform, self.settings.batch_size
        self._order = EndlessOrder(
            sizes=self.index.sizes,
            weights=self.index.weights,
            seed=self.seed,
            sampling=self.settings.sampling,
            labels=None if self.buckets is None else self.buckets.labels,
        )
        self._bucket_order: BucketOrder | None = None
        if self.buckets is not None:
            self._bucket_order = BucketOrder(
                self._order, self.buckets.labels, batch_size=self._batch_size
            )
        self._read_ahead_to: int | None = None

    def __getitem__(self, number: int) -> Batch:
        """Load a batch.

        Raises:
            DataError: If a server does not answer, or too many images in a row are bad.
        """
        step = self.start + number * self.world_size * self._batch_size
        self._read_ahead(step)
        first = step + self.rank * self._batch_size
        transform, samples = self._samples(first)
        images, keys, texts, faults = [], [], list[str](), list[Fault]()
        for epoch, position, image_id in zip(*(a.tolist() for a in samples), strict=True):
            generator = sample_generator(seed=self.seed, epoch=epoch, position=position)
            image, text, used_id = self._load(image_id, transform, generator, faults)
            images.append(image)
            texts += text
            keys.append(self.index.key(used_id))
        return Batch(
            samples=stack(images),
            mask=torch.ones(self._batch_size, dtype=torch.bool),
            keys=keys,
            texts=texts,
            faults=faults,
        )

    def _samples(self, first: int) -> tuple[Transform, tuple[Int64[np.ndarray, " b"], ...]]:
        """Look up the batch that begins at a position: its transform; epochs, positions, images."""
        if self.buckets is None or self._bucket_order is None:
            return self._transform, self._order.samples(first, self._batch_size)
        batch = self._bucket_order.batch(first // self._batch_size)
        transform = self._transform.sized(self.buckets.sizes[batch.bucket])
        return transform, (batch.epochs, batch.positions, batch.ids)

    def _load(
        self,
        image_id: int,
        transform: Transform,
        generator: np.random.Generator,
        faults: list[Fault],
    ) -> tuple[Tensor, list[str], int]:
        for _ in range(MAX_BAD_IN_A_ROW):
            try:
                text = [] if self.texts is None else [self.texts.read(image_id)]
                encoded = self.index.read(image_id)
                return transform.decode(encoded, generator), text, image_id
            except BadSampleError as error:
                faults.append(self.index.fault(image_id, str(error)))
                is_still = self.index.stills[image_id]
                image_id = int(generator.integers(len(self.index)))
                while self.index.stills[image_id] != is_still:  # an image is no clip
                    image_id = int(generator.integers(len(self.index)))
        raise all_bad(faults[-1], self.index.media)

    def _read_ahead(self, step: int) -> None:
        """Read ahead in the window after this one, as far as this step allows.

        The processes of a machine, and the workers of each, share this work block by block.
        """
        worker = get_worker_info()
        workers, worker_id = (worker.num_workers, worker.id) if worker else (1, 0)
        end = step + self.world_size * self._batch_size + self._order.lead
        if self.buckets is not None:  # batches that are not yet full, one of each size
            end += len(self.buckets.sizes) * self._batch_size
        begin = self._read_ahead_to
        if begin is None:
            begin = self._order.window_start(step)
        self._read_ahead_to = end
        for image_ids in self._order.blocks(
            begin,
            end,
            part=self.rank % self.ranks_per_node * workers + worker_id,
            parts=self.ranks_per_node * workers,
        ):
            self.index.read_ahead(image_ids)


@final
@dataclass(eq=False)
class ValidationBatches(Dataset[Batch]):
    """Every image once over all ranks, in the order of the index.

    All ranks have the same number of full batches, so that none waits forever for another. The last
    batches are padded with the last image, masked. A bad image is masked too.

    Attributes:
        index: Images to validate on.
        transform: How they become arrays.
        batch_size: Images per batch and process.
        rank: Number of this process.
        world_size: Number of processes.
        texts: Those of the images, if they are wanted.
    """

    index: SampleIndex
    _: KW_ONLY
    transform: Transform
    batch_size: int
    rank: int = 0
    world_size: int = 1
    texts: Texts | None = None

    def __len__(self) -> int:
        """Count the batches of one rank."""
        return math.ceil(len(self.index) / (self.batch_size * self.world_size))

    def __getitem__(self, number: int) -> Batch:
        """Load a batch.

        Raises:
            DataError: If a server does not answer.
        """
        first = (number * self.world_size + self.rank) * self.batch_size
        positions = np.arange(first, first + self.batch_size)
        image_ids = np.minimum(positions, len(self.index) - 1).tolist()
        loaded: dict[int, Tensor] = {}
        texts: dict[int, str] = {}
        faults = []
        for image_id in dict.fromkeys(image_ids):
            try:
                if self.texts is not None:
                    texts[image_id] = self.texts.read(image_id)
                encoded = self.index.read(image_id)
                loaded[image_id] = self.transform.decode(encoded, None)
            except BadSampleError as error:
                faults.append(self.index.fault(image_id, str(error)))
        size, channels = self.transform.sample_size, self.transform.channels
        dtype = torch.uint8 if self.transform.range is None else torch.float32
        blank = torch.zeros(channels, *size, dtype=dtype)
        is_good = np.array([image_id in loaded for image_id in image_ids])
        return Batch(
            samples=stack([loaded.get(image_id, blank) for image_id in image_ids]),
            mask=torch.from_numpy((positions < len(self.index)) & is_good),
            keys=[self.index.key(image_id) for image_id in image_ids],
            texts=[] if self.texts is None else [texts.get(i, "") for i in image_ids],
            faults=faults,
        )
