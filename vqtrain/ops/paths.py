"""Paths as people type them."""

import os
from pathlib import Path

from vqtrain.errors import ConfigError


def expand(path: str | Path) -> Path:
    """Read a path, in which ``~`` is the home folder, and ``~name`` that of a user.

    Raises:
        ConfigError: If there is neither that user nor a file of that name.
    """
    expanded = os.path.expanduser(path)  # noqa: PTH111 - Path raises for an unknown ~user
    first = Path(expanded).parts[:1]
    if first and first[0].startswith("~") and not os.path.lexists(first[0]):
        raise ConfigError(f"{path}: there is no user {first[0][1:]!r}, and no file {first[0]} here")
    return Path(expanded)
