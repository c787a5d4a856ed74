"""What a tracker is: a place for metrics and images besides the run directory."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import final

import numpy as np
from PIL import Image

IMAGES = "val/reconstructions"


class Tracker(AbstractContextManager["Tracker", None], ABC):
    """A place for metrics and images, on global rank 0 only; it closes as a context ends."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; the run succeeded if there is no error."""
        del kind, trace
        self.close(0 if error is None else 1)

    @abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the metrics of a step."""

    @abstractmethod
    def image(self, step: int, file: Path) -> None:
        """Take a PNG of originals above reconstructions."""

    @abstractmethod
    def close(self, exit_code: int) -> None:
        """Write what is pending; the exit code is 0 if the run succeeded."""


@final
class Leniency:
    """Makes contexts that turn the first error inside them into a warning, and hide the others.

    Args:
        name: What may fail.
        warn: Prints a line for the user.
    """

    def __init__(self, *, name: str, warn: Callable[[str], None]) -> None:
        self.name, self.warn = name, warn
        self.has_warned = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Suppress an error, and a SystemExit, which wandb raises; but no signal."""
        try:
            yield
        except (Exception, SystemExit) as error:
            if not self.has_warned:
                self.has_warned = True
                self.warn(
                    f"warning: {self.name} failed, the run continues and metrics.jsonl holds "
                    f"its metrics: {first_line(error)}"
                )


def read_image(file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read a PNG as gray or colored pixels."""
    with Image.open(file) as image:
        return np.asarray(image)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
