"""What happens at the end of a step, after the update: validate, stop? record, checkpoint.

The callbacks run in the order in which ``vqtrain.training.run`` lists them.
"""

import signal
import threading
import time
from abc import ABC, abstractmethod
from types import FrameType
from typing import final

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from vqtrain import distributed
from vqtrain.errors import Interrupted
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.module import TokenizerTraining

# Steps without a finite gradient, in a row, after which nothing but a human can help.
MAX_SKIPPED_IN_ROW = 20

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StepCallback(Callback, ABC):
    """A callback that is called once a step, not once a batch."""

    @final
    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Call ``on_step_end`` after the last batch of a step."""
        del outputs, batch, batch_idx
        assert isinstance(pl_module, TokenizerTraining)
        if pl_module.step_has_ended:
            self.on_step_end(trainer, pl_module)

    @abstractmethod
    def on_step_end(self, trainer: Trainer, module: TokenizerTraining) -> None:
        """Act on a step that has just ended; ``module.step`` counts it."""


@final
class Stopping(StepCallback):
    """Ends the run at its last step, on a signal, out of time, or when it makes no sense any more.

    A signal lets the step end, so that the checkpoint which follows is one like any other; a
    second one does not wait, nor does one before the first step.

    Args:
        max_time_s: Seconds after which this call stops, or None.
        bad_samples: Knows when too many images cannot be read.

    Attributes:
        reason: Why the run ended: ``finished``, ``signal``, ``time``, ``nonfinite`` or ``data``; or
            None.
        signal_number: The signal that came, to any rank, as all ranks have agreed; or None.
    """

    def __init__(self, *, max_time_s: float | None, bad_samples: BadSamples) -> None:
        self.max_time_s, self.bad_samples = max_time_s, bad_samples
        self.reason: str | None = None
        self.signal_number: int | None = None
        self._received: int | None = None
        self.began: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over once more, as Lightning has taken them, and start the clock."""
        del trainer, pl_module
        self.take_signals()
        self.began = time.monotonic()

    def take_signals(self) -> None:
        """Answer signals instead of Lightning, which ends the process in mid-step."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.receive)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note a signal; leave at once if it is the second, or if no step has begun."""
        del frame
        if self._received is not None or self.began is None:
            raise Interrupted(number)
        self._received = number

    def on_step_end(self, trainer: Trainer, module: TokenizerTraining) -> None:
        """Decide, on all ranks alike, whether this was the last step."""
        assert self.began is not None, "training has started"
        elapsed = time.monotonic() - self.began
        is_late = self.max_time_s is not None and elapsed >= self.max_time_s
        news = bool(self.bad_samples.found)
        mine = torch.tensor([self._received or 0, is_late, news], device=module.device)
        signal_number, is_late, news = distributed.all_max(mine).tolist()
        self.signal_number = signal_number or None
        if news:
            self.bad_samples.share(module.step, module.device)
        if module.step >= module.settings.max_steps:
            self.reason = "finished"
        elif module.skipped_in_row >= MAX_SKIPPED_IN_ROW:
            self.reason = "nonfinite"
        elif self.bad_samples.too_many:
            self.reason = "data"
        elif self.signal_number is not None:
            self.reason = "signal"
        elif is_late:
            self.reason = "time"
        trainer.should_stop = self.reason is not None
