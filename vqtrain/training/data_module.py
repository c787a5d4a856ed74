"""Training batches for Lightning, from a position in the endless order of the data."""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Protocol, TypedDict, final, runtime_checkable

from torch.utils.data import Dataset

from vqtrain import distributed
from vqtrain.data.loading.batches import Batch, TrainingBatches, ValidationBatches
from vqtrain.data.loading.buckets import Buckets
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.loading.order import Repetitions
from vqtrain.data.loading.streams import Cursor, StreamBatches
from vqtrain.data.loading.texts import Texts
from vqtrain.data.media import SOUND
from vqtrain.data.settings.base import DataSettings
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.pipes import Stream
from vqtrain.errors import CheckpointError
from vqtrain.training.trained import RunData, Timed


@runtime_checkable
class SampleData(Protocol):
    """What training and validation ask of a Lightning data module, one of your own as well.

    Its ``train_dataloader`` returns batches without an end, and its ``val_dataloader`` returns
    ``[0]``, for which ``TokenizerTraining.validation_step`` makes a whole pass.
    """

    def first_batches(self) -> Iterable[Batch]:
        """Return training batches from the first one on, from which a codebook starts."""

    def validation_batches(self) -> Iterable[Batch]:
        """Return all validation batches of this rank, each time from the first one on."""


class StreamState(TypedDict):
    """Where the readers of a stream are.

    Attributes:
        world_size: Processes of the run.
        num_workers: Readers of each of them.
        cursors: Those of the first process, then those of the next one, and so on; of each, the one
            whose batch is next comes first.
    """

    world_size: int
    num_workers: int
    cursors: list[list[int]]


@final
class TrainingData(RunData):
    """The data of a run.

    Args:
        training: Images to train on, indexed or in sequence.
        validation: Images to validate on.
        settings: The ``data`` group.
        seed: Seed of the run.
        start: Samples that the run has seen so far, over all ranks.
        num_nodes: Machines that the run is on.
        buckets: The sizes of the training images, if they are of several.
        training_texts: Those of the training images, if they are wanted.
        validation_texts: Those of the validation images, if they are wanted.

    Attributes:
        consumed: Batches that this process has trained on since the run began or continued.
    """

    def __init__(
        self,
        *,
        training: SampleIndex | Stream,
        validation: SampleIndex,
        settings: DataSettings,
        seed: int,
        start: int,
        num_nodes: int,
        buckets: Buckets | None = None,
        training_texts: Texts | None = None,
        validation_texts: Texts | None = None,
    ) -> None:
        super().__init__(training_digest=training.digest, validation_digest=validation.digest)
        self.buckets = buckets
        self.training_texts, self.validation_texts = training_texts, validation_texts
        self.training, self.validation = training, validation
        self.settings, self.seed, self.start = settings, seed, start
        self.num_nodes = num_nodes
        self.noun = settings.media.noun
        self.consumed = 0
        self.saved_cursors: list[Cursor] | None = None

    @cached_property
    def epoch_size(self) -> int | None:
        """Samples of an epoch; None for a stream, whose end is not known."""
        if isinstance(self.training, Stream):
            return None
        labels = None if self.buckets is None else self.buckets.labels
        return len(Repetitions(self.training.weights, seed=self.seed, labels=labels))

    @property
    def epochs(self) -> float | None:
        """Epochs that the run has seen so far."""
        return self.epoch_size and self.samples_at(self.consumed) / self.epoch_size

    @property
    def summary(self) -> dict[str, object]:
        """How samples are read, by which commands read them alike."""
        return dict(self.settings.transform.summary)

    @property
    def remedy_for_waiting(self) -> str:
        """What makes samples come faster."""
        key, noun = self.settings.media.key, self.noun
        packed = "sample_rate" if self.settings.media is SOUND else "image_size"
        return (
            f"raise data.num_workers (now {self.settings.num_workers}) up to the number of cores, "
            f"pack smaller {noun}s (vqtrain pack {packed}=...), or keep them on a faster disk; "
            f"vqtrain doctor {key}=... measures what is needed"
        )

    @cached_property
    def cursors(self) -> deque[Cursor]:
        """Where the readers of this process are, the one of the next batch first.

        First read when the ranks are known.
        """
        readers = max(1, self.settings.num_workers)
        first = distributed.rank() * readers
        numbers = range(first, first + readers)
        saved = self.saved_cursors
        cursors = [saved[n] if saved is not None else Cursor.first(n) for n in numbers]
        return deque(cursors, maxlen=readers)

    def continue_from(self, state: StreamState, world_size: int) -> None:
        """Let the readers of a stream begin where those of a checkpoint were.

        Args:
            state: From the checkpoint.
            world_size: Processes of this run.

        Raises:
            CheckpointError: If there were more readers, or fewer.
        """
        before = (state["world_size"], state["num_workers"])
        now = (world_size, max(1, self.settings.num_workers))
        if before != now:
            raise CheckpointError(
                f"{self.noun}s that are read in sequence (pipe:) resume only with as many "
                f"processes and data.num_workers as before: {before[0]} x {before[1]}, got "
                f"{now[0]} x {now[1]}"
            )
        self.saved_cursors = [Cursor(*numbers) for numbers in state["cursors"]]

    def on_before_batch_transfer(self, batch: Batch | int, dataloader_idx: int) -> Batch | int:
        """Note that a batch is being trained on; Lightning has loaded one more by now."""
        del dataloader_idx
        if isinstance(batch, int):  # of val_dataloader
            return batch
        self.consumed += 1
        if batch.cursor is not None:
            self.cursors.append(Cursor(*batch.cursor))  # drops the first, which it was from
        return batch

    def places(self) -> StreamState | None:
        """Describe where the readers of all processes are, if images are a stream; collective."""
        if not isinstance(self.training, Stream):
            return None
        return {
            "world_size": distributed.world_size(),
            "num_workers": len(self.cursors),
            "cursors": distributed.all_gather_lists([list(cursor) for cursor in self.cursors]),
        }

    def train_dataloader(self) -> Timed:
        """Return batches without an end."""
        self.batches = Timed(self.training_batches(self.training, self.settings, self.buckets))
        return self.batches

    def val_dataloader(self) -> list[int]:
        """Return one item, for which ``TokenizerTraining.validation_step`` makes a whole pass."""
        return [0]

    def first_batches(self) -> Iterable[Batch]:
        """Return the same batches, loaded in this process when they are needed.

        Without buckets, and so of clips alone: a codebook starts from latents of one shape.
        """
        training = self.training
        if isinstance(training, SampleIndex) and self.buckets is not None:
            training = training.clips
        return self.training_batches(training, replace(self.settings, num_workers=0), None)

    def training_batches(
        self, training: SampleIndex | Stream, settings: DataSettings, buckets: Buckets | None
    ) -> Loader[Batch]:
        """Load training batches of this rank from ``start`` on."""
        if isinstance(training, Stream):
            batches: Dataset[Batch] = StreamBatches(
                training,
                settings=settings,
                seed=self.seed,
                readers=distributed.world_size() * len(self.cursors),
                cursors=tuple(self.cursors),
            )
        else:
            batches = TrainingBatches(
                training,
                settings=settings,
                seed=self.seed,
                rank=distributed.rank(),
                world_size=distributed.world_size(),
                ranks_per_node=max(1, distributed.world_size() // self.num_nodes),
                start=self.start,
                buckets=buckets,
                texts=self.training_texts,
            )
        return Loader(batches, num_workers=settings.num_workers)

    def validation_batches(self) -> Loader[Batch]:
        """Return every validation image once over all ranks."""
        batches = ValidationBatches(
            self.validation,
            transform=self.settings.transform,
            batch_size=self.settings.batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            texts=self.validation_texts,
        )
        return Loader(batches, numbers=range(len(batches)), num_workers=self.settings.num_workers)

    def samples_at(self, batches: int) -> int:
        """Count the samples seen over all ranks after that many batches of each."""
        return self.start + batches * distributed.world_size() * self.settings.batch_size
