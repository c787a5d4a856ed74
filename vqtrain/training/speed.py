"""How long training steps take."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import final

import torch
from jaxtyping import Shaped
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor

from vqtrain.data.loading.batches import Batch
from vqtrain.training.launch import build_trainer
from vqtrain.training.module import TokenizerTraining

Until = Callable[[Sequence[float]], bool]


def time_batches(
    module: TokenizerTraining,
    samples: Shaped[Tensor, "b c *size"],
    until: Until,
    callbacks: Sequence[Callback] = (),
) -> list[float]:
    """Train on one batch again and again, and return the seconds of each time.

    Args:
        module: What trains; its settings are those of the trainer.
        samples: The batch, as a worker brings it.
        until: Says after each batch whether the seconds so far are enough.
        callbacks: Others that look on.
    """
    trainer, clock = build_trainer(module.settings), Clock(until)
    trainer.callbacks = [*callbacks, clock]  # type: ignore[attr-defined]  # its type is not declared
    mask = torch.ones(len(samples), dtype=torch.bool)
    batch = Batch(samples=samples, mask=mask, keys=[""] * len(samples))
    trainer.fit(module, datamodule=Repeated(batch))
    return clock.seconds


@final
class Repeated(LightningDataModule):
    """One batch without an end."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch

    def train_dataloader(self) -> Iterator[Batch]:
        """Return the batch without an end."""
        return itertools.repeat(self.batch)

    def first_batches(self) -> Iterator[Batch]:
        """Return what a codebook would start from."""
        return itertools.repeat(self.batch)


@final
class Clock(Callback):
    """Times batches, from one to the next.

    Args:
        until: Says after each batch whether the seconds so far are enough.

    Attributes:
        seconds: Of each batch.
    """

    def __init__(self, until: Until) -> None:
        self._until = until
        self._began = 0.0
        self.seconds: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        del trainer, pl_module
        self._began = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Note how long a batch took, and stop if that is enough."""
        del outputs, batch, batch_idx
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        now = time.perf_counter()
        self.seconds.append(now - self._began)
        trainer.should_stop = self._until(self.seconds)
        self._began = now
