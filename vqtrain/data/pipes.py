"""Commands that write a tar: what cannot seek is kept on disk until this process ends."""

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

from vqtrain.errors import DataError

_numbers = count()


def spool(command: str) -> Path:
    """Run a shell command and keep its output in a file, removed when this process ends.

    Args:
        command: What stands after ``pipe:``, such as ``curl -s https://host/a.tar``.

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
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
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
