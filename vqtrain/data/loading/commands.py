"""Tars that a command writes to its standard output, read by webdataset, and the processes.

webdataset's own opener of ``pipe:`` is not used: it loses what a command wrote before it failed,
waits up to two hours for one that does not end, and leaves it to Ctrl-C. See decision 22.
"""

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

from webdataset.tariterators import group_by_keys, tar_file_iterator

from vqtrain.data.media import Media
from vqtrain.data.sources.scan import COMPRESSIONS, is_hidden

# What a pipe of Linux holds: larger reads would find no more.
_BUFFER_BYTES = 64 * 1024


@final
class Shard:
    """A tar that a command writes, read once from its beginning to its end.

    Args:
        command: Run by ``sh``, and trusted like the configuration that it comes from.
        media: What is taken of the tar.

    Attributes:
        reason: What is wrong with it, known after all of its samples were read; or None.
    """

    def __init__(self, command: str, media: Media) -> None:
        self.reason: str | None = None
        self._text, self._media = command, media

    def samples(self) -> Iterator[tuple[str, bytes]]:
        """Run the command; yield the key and the content of each sample.

        The key is the name up to the first dot. If several images in a row have one key, the first
        is taken, as when a tar is scanned.
        """
        command = _Command(self._text)
        try:
            files = self._files(_Blocks(command.output))
            for sample in group_by_keys(files, handler=lambda _duplicate: True):
                first = next(name for name in sample if not name.startswith("__"))
                yield sample["__key__"], sample[first]
            # The failure of a command explains why its tar is incomplete.
            self.reason = command.failure() or self.reason
        finally:
            command.close()

    def _files(self, blocks: "_Blocks") -> Iterator[dict[str, object]]:
        """Read the images of one tar after the other, to the end of the output or to damage."""
        while self.reason is None and (blocks.skip_zeros() or not blocks.count):
            try:
                blocks.refuse_compressed()
                for file in tar_file_iterator(
                    blocks,
                    skip_meta=None,  # or it drops folders such as __train__
                    rename_files=lambda name: PurePosixPath(name).as_posix(),
                    select_files=self._is_wanted,
                ):
                    yield {**file, "__url__": self._text}
                blocks.refuse_damaged()
            except tarfile.TarError as error:
                what = "the tar is cut off or damaged"
                if blocks.count < 2:
                    what = "its output is not an uncompressed tar"
                # webdataset adds an address in memory, which differs in each run.
                self.reason = f"{what} ({str(error).partition(' @ ')[0]})"
            yield {}  # a sample is in one tar

    def _is_wanted(self, name: str) -> bool:
        path = PurePosixPath(name)
        return self._media.owns(path) and not any(map(is_hidden, path.parts))


@final
class _Blocks:
    """A command's output, read block by block so that it is known where tarfile stopped.

    tarfile treats damaged and missing headers as the end of a tar.

    Args:
        output: The output.

    Attributes:
        count: Number of blocks read.
    """

    def __init__(self, output: IO[bytes]) -> None:
        self.count = 0
        self._output = output
        self._last = self._pushed_back = b""

    def read(self, _size: int = 0) -> bytes:
        """Return the next block, or the rest of an incomplete one."""
        block = self._pushed_back or self._output.read(tarfile.BLOCKSIZE)
        self._pushed_back = b""
        self.count += bool(block)
        if block or len(self._last) == tarfile.BLOCKSIZE:  # else it was cut off inside of a header
            self._last = block
        return block

    def skip_zeros(self) -> bool:
        """Skip to the next block that is not zero; return whether there is one."""
        while block := self.read():
            if block.strip(b"\0"):
                self._pushed_back = block
                self.count -= 1
                return True
        return False

    def refuse_compressed(self) -> None:
        for mark, name in COMPRESSIONS.items():
            if self._pushed_back.startswith(mark):
                raise tarfile.ReadError(f"it is compressed with {name}")

    def refuse_damaged(self) -> None:
        if self._last.strip(b"\0"):
            raise tarfile.ReadError("invalid header")


@final
class _Command:
    """The process of a command, in its own session, so that Ctrl-C does not reach it."""

    def __init__(self, text: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            text,
            shell=True,
            bufsize=_BUFFER_BYTES,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.output = self._process.stdout
        _running.add(self)

    def failure(self) -> str | None:
        """Return how it failed, or None; also None if it has not ended."""
        if self.output.read(1) or self._process.wait() == 0:
            return None
        end = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, end - 4096))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = f": {lines[-1].strip()[:200]}" if lines else ""
        return f"exit code {self._process.returncode}{last}"

    def close(self) -> None:
        """Kill it if it has not ended, and release it."""
        if self not in _running:
            return  # this process is a fork of the one that started it
        _running.discard(self)
        self.kill()
        self._process.wait()
        self.output.close()
        self._errors.close()

    def kill(self) -> None:
        """Kill it and its child processes, if it has not ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


# Of this process.
_running: set[_Command] = set()
os.register_at_fork(after_in_child=_running.clear)


def end_commands() -> None:
    """Kill the commands that this process has started, when it ends."""
    for command in list(_running):
        command.kill()


atexit.register(end_commands)
