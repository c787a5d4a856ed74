"""Where what is worked out once is kept: indexes of tars, and the demo's shards."""

import os
from pathlib import Path

from vqtrain.errors import DataError


def cache_folder() -> Path:
    """Find the folder of caches: ``VQTRAIN_CACHE``, else ``~/.cache/vqtrain``.

    It need not exist yet. Everything in it can be deleted at any time.

    Returns:
        An absolute path.

    Raises:
        DataError: If neither the variable nor a home folder is there.
    """
    configured = os.environ.get("VQTRAIN_CACHE")
    try:
        folder = Path(configured).expanduser() if configured else Path.home() / ".cache" / "vqtrain"
    except RuntimeError:
        raise DataError("there is no home folder: set VQTRAIN_CACHE to a folder") from None
    return folder.absolute()
