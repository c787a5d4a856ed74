"""Retries of requests, and errors that are not retried."""

import socket
import sys
import time
from collections.abc import Callable
from random import SystemRandom
from typing import TypeVar

from vqtrain.errors import DataError, VqtrainError

# A request that gets no answer in this time is retried.
TIMEOUT_S = 60.0
# Waits between retries, doubled each time, and how long a request is retried.
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
RETRY_S = 300.0
# The same before a run has started, when a wrong name or port is likelier than an outage.
FIRST_RETRY_S = 30.0
# A process says that it is waiting at most once in this time.
NOTICE_S = 300.0

# Errors that are not retried: a wrong name, no access, a mistake in a setting or in a program.
_PERMANENT = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError),
    *(ValueError, TypeError, AttributeError, LookupError, AssertionError, VqtrainError),
)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound")

_Answer = TypeVar("_Answer")
_last_notice_s = -NOTICE_S


class ChangedError(Exception):
    """A file on a server is not the one that was indexed."""


def retried(url: str, request: Callable[[], _Answer], *, is_known: bool) -> _Answer:
    """Make a request, and retry it with growing waits for about 5 minutes.

    Args:
        url: What is requested.
        request: Makes one request.
        is_known: Whether this server has answered before; otherwise retries end after 30 seconds,
            and a host name that does not exist is taken for a typo.

    Raises:
        DataError: If the server does not answer in that time.
        Exception: An error of ``request`` that is not retried.
    """
    began_s, retry_s = time.monotonic(), RETRY_S if is_known else FIRST_RETRY_S
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return request()
        except Exception as error:
            _raise_if_permanent(url, error, is_known=is_known)
            if time.monotonic() - began_s >= retry_s:
                raise DataError(
                    f"the server of {url} does not answer: {one_line(error)}; "
                    f"retried for {retry_s:.0f} s"
                ) from error
            _notify(url, error, retry_s)
        time.sleep(wait_s * SystemRandom().uniform(0.5, 1.0))  # not all processes at once
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def one_line(error: BaseException) -> str:
    """Describe an error in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _raise_if_permanent(url: str, error: Exception, *, is_known: bool) -> None:
    if isinstance(error, ImportError):
        scheme = url.split("://", 1)[0]
        raise DataError(f'{scheme}:// needs: pip install "vqtrain[remote]"') from error
    if type(error).__name__ in _NO_CREDENTIALS:
        raise DataError(
            f"no credentials to read {url}: {one_line(error)} "
            "(for a public bucket set FSSPEC_S3_ANON=true)"
        ) from error
    if isinstance(error, (*_PERMANENT, ChangedError)):
        raise error
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        raise PermissionError(one_line(error)) from error
    if not is_known and _is_unknown_name(error):
        raise DataError(f"cannot find the server of {url}: {one_line(error)}") from error


def _is_unknown_name(error: BaseException | None) -> bool:
    """Tell whether an error, or one of its causes, is a host name that does not exist."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def _notify(url: str, error: Exception, retry_s: float) -> None:
    global _last_notice_s  # noqa: PLW0603 - one notice a process
    if time.monotonic() - _last_notice_s >= NOTICE_S:
        _last_notice_s = time.monotonic()
        sys.stderr.write(
            f"{url} cannot be read: {one_line(error)}; retrying for up to {retry_s:.0f} s\n"
        )
