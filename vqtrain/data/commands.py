"""Tars that a command writes to its standard output, and the processes that run it."""

import atexit
import os
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import IO, final

from vqtrain.data.scan import is_hidden, is_picture

# What a pipe of Linux holds: larger reads would find no more.
_BUFFER_BYTES = 64 * 1024


@final
class Shard:
    """A tar that a command writes, read once from its beginning to its end.

    Args:
        command: Run by ``sh``, and trusted like the configuration that it comes from.

    Attributes:
        reason: What is wrong with it, once all of its samples are read; or None.
    """

    def __init__(self, command: str) -> None:
        self.reason: str | None = None
        self._text = command

    def samples(self) -> Iterator[tuple[str, bytes]]:
        """Run the command; yield the key and the content of each picture."""
        command = _Command(self._text)
        try:
            yield from self._read_tar(command.output)
            # A command that failed explains why its tar is not whole.
            self.reason = command.failure() or self.reason
        finally:
            command.close()

    def _read_tar(self, output: IO[bytes]) -> Iterator[tuple[str, bytes]]:
        """Go from header to header.

        The key is the name up to the first dot. Of several pictures with one key in a row the first
        is taken, as when a tar is scanned.
        """
        group, has_header = "", False
        try:
            with tarfile.open(
                fileobj=output,
                mode="r|",
                bufsize=_BUFFER_BYTES,
                tarinfo=_Header,
                ignore_zeros=True,  # goes on to the end of the output, also into a second tar
            ) as tar:
                while (member := tar.next()) is not None:
                    has_header = True
                    # It would remember every header.
                    tar.members.clear()  # type: ignore[attr-defined]  # not declared
                    name = PurePosixPath(member.name)
                    if not member.isfile() or any(map(is_hidden, name.parts)):
                        continue
                    key = name.with_name(name.name.split(".")[0]).as_posix()
                    if is_picture(name) and key != group:
                        group = key
                        content = tar.extractfile(member)
                        assert content is not None, "it is a file"
                        yield key, content.read()
        except tarfile.TarError as error:
            what = (
                "the tar is cut off or damaged" if has_header else "it writes no uncompressed tar"
            )
            self.reason = f"{what} ({error})"


@final
class _Header(tarfile.TarInfo):
    """A header in a tar, for which tarfile takes no garbage: neither as an end nor as a gap."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Header":
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if buf.strip(b"\0"):
                raise tarfile.ReadError(str(error)) from error
            raise


@final
class _Command:
    """A process that writes; it has a session of its own, so that Ctrl-C does not reach it."""

    def __init__(self, text: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            text,
            shell=True,
            bufsize=0,  # a pipe gives what it has, and does not wait for more
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout
        _running.add(self)

    def failure(self) -> str | None:
        """Return how it failed; of one that would write more, nothing is known."""
        if self.output.read(1) or self._process.wait() == 0:
            return None
        end = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, end - 4096))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()[:200]}" if lines else ""
        return f"exit code {self._process.returncode}{last}"

    def close(self) -> None:
        """Kill it if it has not ended, and forget it."""
        if self not in _running:
            return  # it is a copy of what the process had from which this one was forked
        _running.discard(self)
        self.kill()
        self._process.wait()
        self.output.close()
        self._errors.close()

    def kill(self) -> None:
        """Kill it and all that it has started, if it has not ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


# Of this process.
_running: set[_Command] = set()
os.register_at_fork(after_in_child=_running.clear)


def end_commands() -> None:
    """Kill the commands that this process has started, at its own end."""
    for command in list(_running):
        command.kill()


atexit.register(end_commands)
