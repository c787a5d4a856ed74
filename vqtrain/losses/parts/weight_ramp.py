"""The weight of a loss term over the run."""

from dataclasses import dataclass
from typing import Annotated

from vqtrain.ranges import FINITE, at_least, check_fields


@dataclass(frozen=True, kw_only=True)
class Weight:
    """The weight of a loss term, from its first step on.

    Args:
        name: Of the term, for messages and logs.
        weight: What the term is multiplied by after the ramp, at least 0 and finite.
        start_step: First step of the term, at least 0; before it, the term is not computed.
        ramp_steps: Steps over which the weight grows to ``weight``, at least 0.

    Raises:
        ConfigError: If a value is out of range.
    """

    name: str
    weight: Annotated[float, at_least(0), FINITE]
    start_step: Annotated[int, at_least(0)]
    ramp_steps: Annotated[int, at_least(0)]

    def __post_init__(self) -> None:
        check_fields(self, f"loss.{self.name}")

    def enabled(self, step: int) -> bool:
        """Say whether the term is enabled at a step."""
        return step >= self.start_step

    def at(self, step: int) -> float:
        """Return the weight of a step.

        Step i of the ramp has the share (i + 1) / ramp_steps, so the last one has all of it, as in
        a warm-up.
        """
        if not self.enabled(step):
            return 0.0
        share = min(1.0, (step - self.start_step + 1) / max(1, self.ramp_steps))
        return self.weight * share
