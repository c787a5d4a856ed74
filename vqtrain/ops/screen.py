"""The standard streams of a command, which may go away while it works."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TextIO, final


@final
class Screen(io.TextIOBase):
    """A text stream for people: work goes on where nobody reads it, or not every character.

    A terminal is closed, ``tee`` is killed, the disk of a redirected log is full: what cannot be
    written is dropped from then on. Characters outside the stream's encoding are escaped.

    Args:
        stream: Where text goes; None if the process was started without it.
    """

    def __init__(self, stream: TextIO | io.TextIOBase | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        """Encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        """Text can always be written."""
        return True

    def isatty(self) -> bool:
        """Say whether somebody looks at it."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        if self._stream is None:
            raise io.UnsupportedOperation("there is no stream")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write text, or drop it."""
        if self._stream is not None:
            shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            with self._dropped_if_gone():
                self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        if self._stream is not None:
            with self._dropped_if_gone():
                self._stream.flush()

    @contextmanager
    def _dropped_if_gone(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            pass  # its reader is slow, and not gone
        except OSError:
            assert self._stream is not None, "it was there to write to"
            # What is still buffered, and what others write to the descriptor, goes nowhere.
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            self._stream = None


@contextmanager
def lasting_screen() -> Iterator[None]:
    """Return a context in which ``sys.stdout`` and ``sys.stderr`` never fail."""
    out, err = Screen(sys.stdout), Screen(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()
