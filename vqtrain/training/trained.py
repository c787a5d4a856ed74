"""What a run can train, on what, and by what it is measured: the contracts of ``fit``."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, final, runtime_checkable

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.nn.parallel import DistributedDataParallel

from vqtrain.data.faults import Fault
from vqtrain.errors import CheckpointError
from vqtrain.ops.profiling import Call
from vqtrain.shapes import Mask
from vqtrain.training.acceleration import CompileClock
from vqtrain.training.optimizers import Optimizers
from vqtrain.training.settings import TrainerSettings


@runtime_checkable
class RunBatch(Protocol):
    """What a run asks of a batch."""

    @property
    def mask(self) -> Mask:
        """False for padding, which must not be counted."""

    @property
    def faults(self) -> Sequence[Fault]:
        """Samples that could not be read and were skipped."""


@final
@dataclass(frozen=True, kw_only=True)
class Advice:
    """What people can do about what ends a run, in their own keys.

    Attributes:
        memory: Where the device has no memory left.
        nonfinite: Where losses or gradients are not finite.
        resume: How to continue; ``{run_dir}`` stands for the run directory.
    """

    memory: str
    nonfinite: str
    resume: str


@final
@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a checkpoint holds of a module.

    Attributes:
        result: What people use, by its key in the checkpoint, such as ``tokenizer``.
        state: What only training needs, by its keys in the checkpoint's ``training``.
    """

    result: Mapping[str, object]
    state: Mapping[str, object]


class Trained(LightningModule, ABC):
    """A module that ``vqtrain.training.run.fit`` can train.

    A step is ``trainer.accumulate`` batches on every rank. Its number, ``step``, is ours:
    Lightning's counts every optimizer. ``training_step`` takes one batch, updates after the last
    one of a step and then counts the step.

    Args:
        trainer_settings: The ``trainer`` group.
        seed: Seed of the run.

    Attributes:
        step: Steps done.
        batches_in_step: Batches of the step so far; 0 after its last one.
        logs: Whether it logs its metrics through Lightning; a run has a record of its own.
        compile_clock: Knows how long torch has been compiling; None if nothing is compiled.
        optim: The optimizers, once there is a trainer.
    """

    advice: ClassVar[Advice]
    optim: Optimizers

    def __init__(self, *, trainer_settings: TrainerSettings, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.settings, self.seed = trainer_settings, seed
        self.step = self.batches_in_step = 0
        self.logs = True
        self.compile_clock: CompileClock | None = None

    @abstractmethod
    def logged_metrics(self) -> dict[str, float]:
        """Return the metrics of training since the last call; collective."""

    @abstractmethod
    def hint(self, values: Mapping[str, float]) -> str | None:
        """Return what people should know of the metrics that were just logged, or None."""

    @abstractmethod
    def contents(self, summary: Mapping[str, object]) -> Contents:
        """Collect what a checkpoint holds; collective, and complete on the first rank alone.

        Args:
            summary: The name, the step and the results of the run, for those who use the result.
        """

    @abstractmethod
    def restore(self, checkpoint: Mapping[str, object]) -> None:
        """Continue from what ``contents`` collected, in its place in a checkpoint."""

    @abstractmethod
    def export(self, checkpoint: Mapping[str, object], run_dir: Path) -> None:
        """Write the result of a new checkpoint beside it, if people want it in another form."""

    @abstractmethod
    def conclude(self, config: Mapping[str, object]) -> str | None:
        """Say what there is to say at the end of a run, or None; collective.

        Raises:
            FailedError: If something is not as it must be.
        """

    @abstractmethod
    def calls(self) -> Sequence[Call]:
        """List the calls of a training step, by their parts."""

    @property
    def step_has_ended(self) -> bool:
        """Whether the last batch was the last one of its step."""
        return self.batches_in_step == 0

    @property
    def is_logged(self) -> bool:
        """Whether the metrics of this step are logged: every so often, and those of the last."""
        is_last = self.step == self.settings.max_steps
        return is_last or self.step % self.settings.log_every == 0

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        """Log what is due, and stop after the last step."""
        del outputs, batch, batch_idx
        if not self.step_has_ended:
            return
        if self.logs and self.is_logged:
            self.log_dict(self.logged_metrics(), batch_size=1)
        if self.step >= self.settings.max_steps:
            self.trainer.should_stop = True

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Refuse a checkpoint of Lightning's, which lacks most of the state of a run."""
        del checkpoint
        raise CheckpointError(
            "a checkpoint of Lightning's cannot be resumed exactly: resume with vqtrain train "
            "resume=RUN, or begin from the weights of a tokenizer with init_from=TOKENIZER"
        )

    def take_over_scaling(self) -> None:
        """Drop Lightning's loss scaling: ours is one for all optimizers."""
        if isinstance(self.trainer.precision_plugin, MixedPrecision):
            self.trainer.precision_plugin.scaler = None

    def call_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Call an optimizer's ``step`` as the trainer's precision requires."""
        if optimizer is self.optim.of_torch[0]:
            optimizers = self.optimizers()
            # Lightning counts the calls of its wrappers, as trainer.global_step: one a step.
            (optimizers[0] if isinstance(optimizers, list) else optimizers).step()
        else:
            self.trainer.strategy.optimizer_step(optimizer, lambda: None)

    def reduce_gradients_if(self, step_ends: bool) -> AbstractContextManager[None]:
        """Return a context in which gradients are reduced over ranks only at the end of a step."""
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel) and not step_ends:
            return model.no_sync()
        return nullcontext()


@final
class Timed(Iterable[RunBatch]):
    """Batches without an end, and the time spent waiting for them.

    Args:
        batches: Where they come from.
    """

    def __init__(self, batches: Iterable[RunBatch]) -> None:
        self.batches, self.waited_s = batches, 0.0

    def __iter__(self) -> Iterator[RunBatch]:
        """Begin at the first batch."""
        batches = iter(self.batches)
        while True:
            began = time.monotonic()
            batch = next(batches)  # endless: no StopIteration to hand on
            self.waited_s += time.monotonic() - began
            yield batch


class RunData(LightningDataModule, ABC):
    """The data of a run: batches without an end, from a position in their order.

    ``train_dataloader`` returns the batches, and keeps them as ``batches``.

    Args:
        training_digest: A hash of what is trained on.
        validation_digest: A hash of what is validated on.

    Attributes:
        batches: Those that are trained on, once training begins.
        noun: One sample, for people.
    """

    noun: str = "image"

    def __init__(self, *, training_digest: str, validation_digest: str) -> None:
        super().__init__()
        self.training_digest, self.validation_digest = training_digest, validation_digest
        self.batches: Timed | None = None

    @property
    @abstractmethod
    def epochs(self) -> float | None:
        """Epochs that the run has seen so far; None where their end is not known."""

    @property
    @abstractmethod
    def summary(self) -> Mapping[str, object]:
        """What is to be known of the samples by those who use the result."""

    @property
    @abstractmethod
    def remedy_for_waiting(self) -> str | None:
        """What people can do where much time goes into waiting for data; None if nothing."""

    @abstractmethod
    def samples_at(self, batches: int) -> int:
        """Count the samples seen over all ranks after that many batches of each."""

    @abstractmethod
    def places(self) -> object:
        """Describe the position in the data that the samples do not tell; collective.

        None where they tell it all.
        """

    def take_waited_s(self) -> float:
        """Return the seconds that were spent waiting for batches since the last call."""
        assert self.batches is not None, "training has begun"
        waited_s, self.batches.waited_s = self.batches.waited_s, 0.0
        return waited_s


class Validator(ABC):
    """Measures what is trained, every ``trainer.validate_every`` steps and at the last one.

    Attributes:
        results: The values of the step that has just ended; empty if it was not validated.
        hint: What people should know of the last validation, on the first process; None if nothing.
    """

    def __init__(self) -> None:
        self.results: dict[str, float] = {}
        self.hint: str | None = None

    def measure_if_due(self, trainer: Trainer, module: Trained) -> None:
        """Validate if this step is due; collective."""
        settings = module.settings
        is_last = module.step >= settings.max_steps
        is_due = settings.is_due(settings.validate_every, module.step)
        self.results = self.measure(trainer, module) if is_due or is_last else {}

    @property
    @abstractmethod
    def score(self) -> float | None:
        """What chooses ``best.ckpt``, so that higher is better; None if there is none."""

    @abstractmethod
    def measure(self, trainer: Trainer, module: Trained) -> dict[str, float]:
        """Run over the validation samples; collective."""

    @abstractmethod
    def picture_at(self, step: int) -> Path | None:
        """Return where the images of a step are, or would be; None if there are never any."""
