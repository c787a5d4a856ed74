"""The stop policy: when a run ends, and for which reason."""

import signal
import threading
import time
from types import FrameType
from typing import final

import torch

from vqtrain import distributed
from vqtrain.errors import Interrupted
from vqtrain.ops.signals import heard
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.trained import Trained

# A run ends after so many skipped steps in a row.
MAX_SKIPPED_IN_ROW = 20


@final
class StopPolicy:
    """Ends a run at its last step, on a signal, out of time, or when it cannot continue.

    A signal lets the step end, so that the checkpoint of that step is like any other. A second
    signal, or one before the first step, ends the process at once.

    Args:
        max_time_s: Seconds after which this call stops, or None.
        bad_samples: Knows when too many images cannot be read; None where all can be.

    Attributes:
        reason: Why the run ended: ``finished``, ``signal``, ``time``, ``nonfinite``, ``data`` or
            ``callback``; or None.
        signal_number: The signal that a rank received, once all ranks have agreed; or None.
    """

    def __init__(self, *, max_time_s: float | None, bad_samples: BadSamples | None) -> None:
        self.max_time_s, self.bad_samples = max_time_s, bad_samples
        self.reason: str | None = None
        self.signal_number: int | None = None
        self._received: int | None = None
        self.began: float | None = None

    def start(self) -> None:
        """Take over the signals, which Lightning has just taken, and start the clock."""
        self.take_signals()
        self.began = time.monotonic()

    def take_signals(self) -> None:
        """Handle signals instead of Lightning, which ends the process within a step."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *heard()):
                signal.signal(number, self.receive)

    def end(self) -> None:
        """Let a signal end the process at once, as there is no step any more to wait for."""
        self.began = None

    def spared(self) -> int:
        """Return how many signals do not end the process: none before the first step, then one."""
        return 0 if self.began is None else 1

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note a signal; end at once if it is the second, or if no step has begun."""
        del frame
        if self._received is not None or self.began is None:
            raise Interrupted(number)
        self._received = number

    def decide(self, module: Trained, *, is_asked: bool = False) -> bool:
        """Say whether the step that has just ended is the last one; collective.

        Args:
            module: The module that trains.
            is_asked: Whether a callback of the user asks to stop.
        """
        assert self.began is not None, "training has started"
        elapsed = time.monotonic() - self.began
        is_late = self.max_time_s is not None and elapsed >= self.max_time_s
        bad_samples = self.bad_samples
        news = bad_samples is not None and bool(bad_samples.found)
        mine = torch.tensor([self._received or 0, is_late, news, is_asked], device=module.device)
        signal_number, is_late, news, is_asked = distributed.all_max(mine).tolist()
        self.signal_number = signal_number or None
        if news and bad_samples is not None:
            bad_samples.share(module.step, module.device)
        if module.step >= module.settings.max_steps:
            self.reason = "finished"
        elif module.optim.skipped_in_row >= MAX_SKIPPED_IN_ROW:
            self.reason = "nonfinite"
        elif bad_samples is not None and bad_samples.too_many:
            self.reason = "data"
        elif self.signal_number is not None:
            self.reason = "signal"
        elif is_late:
            self.reason = "time"
        elif is_asked:
            self.reason = "callback"
        return self.reason is not None
