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
    first = next(iter(Path(expanded).parts), "")
    if not first.startswith("~"):
        return Path(expanded)
    if not expanded.startswith("~"):  # ./~name, of which a path would drop the ./
        return Path.cwd() / expanded
    if not os.path.lexists(first):
        raise ConfigError(
            f"{path}: there is no user {first[1:]!r}, and no file {first} here; a new file of "
            f"that name is ./{first}"
        )
    return Path(expanded)
