"""Commands that write tars: streamed for training, otherwise kept on disk until the end."""

import atexit
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import final

from vqtrain.data.faults import Fault
from vqtrain.data.media import IMAGE, Media
from vqtrain.errors import DataError

_numbers = count()


@final
@dataclass(frozen=True, kw_only=True)
class Stream:
    """Samples that can only be read in sequence, and whose number is unknown.

    Attributes:
        media: What the samples are of.
        commands: One per shard, run by ``sh``, and trusted like the configuration that they come
            from. Each writes an uncompressed tar to its standard output.
    """

    commands: tuple[str, ...]
    media: Media = IMAGE

    @cached_property
    def digest(self) -> str:
        """A hash of the images and their order, as far as the commands show it."""
        text = "\0".join(self.commands).encode(errors="surrogateescape")
        return blake2b(text, digest_size=16).hexdigest()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults that are known before anything is read; none."""
        return ()


def spool(command: str) -> Path:
    """Run a shell command and keep its output in a file, removed when this process ends.

    Args:
        command: What follows ``pipe:``, such as ``curl -s https://host/a.tar``.

    Returns:
        The file, named as a tar.

    Raises:
        DataError: If the command fails or the disk is full.
    """
    path = _folder(os.getpid()) / f"pipe-{next(_numbers):05d}.tar"
    try:
        with path.open("wb") as output:
            done = subprocess.run(
                command, shell=True, stdout=output, stderr=subprocess.PIPE, check=False
            )
    except OSError as error:
        raise DataError(f"cannot keep the output of pipe:{command}: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise DataError(f"pipe:{command} failed with exit code {done.returncode}: {said[-1]}")
    return path


@cache
def _folder(process: int) -> Path:
    folder = tempfile.mkdtemp(prefix="vqtrain-pipe-")

    def remove() -> None:
        if os.getpid() == process:  # and not in a fork
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)
