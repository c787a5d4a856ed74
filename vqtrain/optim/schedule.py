"""The learning rate over the run."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from vqtrain.errors import ConfigError


def constant(_progress: float) -> float:
    """Keep the learning rate."""
    return 1.0


def cosine(progress: float) -> float:
    """Lower the learning rate to 0 along half a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


SHAPES: dict[str, Callable[[float], float]] = {"constant": constant, "cosine": cosine}


@final
@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A linear warm-up, then a constant or a cosine, as a pure function of the step.

    It has no state, so a resumed run cannot lose any.

    Args:
        kind: The schedule after the warm-up: ``constant``, or ``cosine`` to 0 at ``max_steps``.
        warmup_steps: Steps of the warm-up, from 0 to ``max_steps``; with 0 there is none.
        max_steps: Steps of the run, at least 1.

    Raises:
        ConfigError: If the run is empty or the warm-up does not fit into it.

    Example:
        >>> schedule = Schedule(kind="cosine", warmup_steps=4, max_steps=12)
        >>> [schedule.factor(step) for step in (0, 1, 3, 4, 8, 12)]
        [0.25, 0.5, 1.0, 1.0, 0.5, 0.0]
    """

    kind: str
    warmup_steps: int
    max_steps: int

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ConfigError(f"trainer.max_steps must be at least 1, got {self.max_steps}")
        if self.warmup_steps > self.max_steps:
            raise ConfigError(
                f"warmup_steps must be at most {self.max_steps}, the steps of the training, got "
                f"{self.warmup_steps}"
            )

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate at a step, in [0, 1].

        Args:
            step: Updates made before this one, from 0. Step i of the warm-up has
                (i + 1) / warmup_steps, so the last one, warmup_steps - 1, and the one after it have
                1. The cosine would reach 0 at ``max_steps``, one after the last step of the run.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if step >= self.max_steps:
            return SHAPES[self.kind](1.0)
        return SHAPES[self.kind]((step - self.warmup_steps) / (self.max_steps - self.warmup_steps))
