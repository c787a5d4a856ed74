"""Where a command writes."""

import os
from pathlib import Path

from vqtrain.errors import ConfigError


def expand(out: str) -> Path:
    """Read the key ``out``, in which ``~`` is the home folder."""
    if not out:
        raise ConfigError("out must name a folder, got nothing")
    return Path(os.path.expanduser(out))  # noqa: PTH111 - Path raises for an unknown ~user


def new_folder(out: str) -> Path:
    """Read the key ``out``, and refuse what exists.

    Raises:
        ConfigError: If something has that name.
    """
    folder = expand(out)
    if os.path.lexists(folder):
        raise ConfigError(f"out={out} exists already: give a folder that does not")
    return folder
