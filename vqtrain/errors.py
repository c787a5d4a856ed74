"""Errors that users see, each reported in one line."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class VqtrainError(Exception):
    """A mistake or a failure that is reported to the user in one line, without a traceback.

    Attributes:
        exit_code: What the command exits with: 2 for wrong input, 1 for a failure after work has
            begun.
    """

    exit_code = 2


class ConfigError(VqtrainError, ValueError):
    """A setting, a size or a combination of modules that cannot work."""


def require(holds: bool, otherwise: str) -> None:
    """Raise ConfigError with a sentence unless a condition on arguments holds."""
    if not holds:
        raise ConfigError(otherwise)


class DataError(VqtrainError):
    """Images that are missing or cannot be read."""


class BadSampleError(DataError):
    """One sample that cannot be read or decoded; a run skips it."""


class TooShortError(BadSampleError):
    """A clip or sound that is shorter than what is to be taken of it.

    Args:
        reason: As of any bad sample.
        length: What it has, in the unit of what is to be taken.
    """

    def __init__(self, reason: str, length: int | float = 0) -> None:
        super().__init__(reason)
        self.length = length


class CheckpointError(VqtrainError):
    """A checkpoint, a run directory or a tokenizer that cannot be read, written or continued."""


class WeightsError(VqtrainError):
    """A file of pretrained weights that is missing, damaged or of another network."""


class FailedError(VqtrainError):
    """A failure after work has begun."""

    exit_code = 1


@contextmanager
def as_failure(
    explain: Mapping[type[Exception], Callable[[Any], str | None]] | None = None,
) -> Iterator[None]:
    """Return a context for work that has begun: every VqtrainError inside it has exit code 1.

    Args:
        explain: Returns the line to report for another type of error, or None to raise the error
            unchanged.

    Raises:
        FailedError: For an error that ``explain`` has a line for.
    """
    try:
        yield
    except VqtrainError as error:
        error.exit_code = FailedError.exit_code
        raise
    except Exception as error:
        for kind, line_for in (explain or {}).items():
            line = line_for(error) if isinstance(error, kind) else None
            if line is not None:
                raise FailedError(line) from error
        raise


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Return a context whose VqtrainErrors begin with the config key that is to blame."""
    try:
        yield
    except VqtrainError as error:
        error.args = (f"{key}: {error}",)
        raise


class Interrupted(BaseException):
    """A signal that ends the program at once.

    Attributes:
        signal_number: The signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
