"""What can go wrong for a user, each reported in one line."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class VqtrainError(Exception):
    """A mistake or a failure that is explained to the user in one line, without a traceback.

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
    """One image that cannot be read or decoded; a run goes on without it."""


class CheckpointError(VqtrainError):
    """A checkpoint, a run directory or a tokenizer that cannot be read, written or continued."""


class WeightsError(VqtrainError):
    """A file of pretrained weights that is missing or is not what it should be."""


class FailedError(VqtrainError):
    """Work that has begun and cannot go on."""

    exit_code = 1


@contextmanager
def as_failure(
    explain: Mapping[type[Exception], Callable[[Any], str | None]] | None = None,
) -> Iterator[None]:
    """Return a context in which work has begun: every VqtrainError inside it has exit code 1.

    Args:
        explain: For other types of errors the line to report. Where it returns None, the error is
            raised as it is.

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


class Interrupted(BaseException):
    """A signal that does not wait for anything more.

    Attributes:
        signal_number: The signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
