"""Training batches for Lightning, from a position in the endless order of the data."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import final

from lightning.pytorch import LightningDataModule

from vqtrain import distributed
from vqtrain.data.batches import Batch
from vqtrain.data.index import ImageIndex
from vqtrain.data.loaders import Loader, training_loader, validation_loader
from vqtrain.data.settings import DataSettings


@final
class Timed(Iterable[Batch]):
    """Batches of a loader, and how long they were waited for.

    Args:
        loader: Where they come from.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader, self.waited_s = loader, 0.0

    def __iter__(self) -> Iterator[Batch]:
        """Begin at the loader's first batch."""
        batches = iter(self.loader)
        while True:
            began = time.monotonic()
            batch = next(batches)  # endless: no StopIteration to hand on
            self.waited_s += time.monotonic() - began
            yield batch


@final
class TrainingData(LightningDataModule):
    """The data of a run.

    Validation batches are not handed to Lightning: validation runs between update and checkpoint,
    see ``vqtrain.training.validation``.

    Args:
        training: Images to train on.
        validation: Images to validate on.
        settings: The ``data`` group.
        seed: Seed of the run.
        start: Samples that the run has seen so far, over all ranks.
    """

    def __init__(
        self,
        *,
        training: ImageIndex,
        validation: ImageIndex,
        settings: DataSettings,
        seed: int,
        start: int,
    ) -> None:
        super().__init__()
        self.training, self.validation = training, validation
        self.settings, self.seed, self.start = settings, seed, start
        self.batches: Timed | None = None

    def train_dataloader(self) -> Timed:
        """Return batches without an end."""
        self.batches = Timed(self.training_batches(self.settings))
        return self.batches

    def take_waited_s(self) -> float:
        """Return the seconds that were spent waiting for batches since the last call."""
        assert self.batches is not None, "training has begun"
        waited_s, self.batches.waited_s = self.batches.waited_s, 0.0
        return waited_s

    def first_batches(self) -> Iterable[Batch]:
        """Return the same batches, loaded in this process as they are asked for."""
        return self.training_batches(replace(self.settings, num_workers=0))

    def training_batches(self, settings: DataSettings) -> Loader:
        """Load training batches of this rank from ``start`` on."""
        return training_loader(
            self.training,
            settings=settings,
            seed=self.seed,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            start=self.start,
        )

    def validation_batches(self) -> Loader:
        """Return every validation image once over all ranks."""
        return validation_loader(
            self.validation,
            settings=self.settings,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
        )

    def samples_at(self, batches: int) -> int:
        """Count the samples seen over all ranks after that many batches of each."""
        return self.start + batches * distributed.world_size() * self.settings.batch_size
