"""Folders that ``vqtrain pack`` has written."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vqtrain.data.media import IMAGE, Media
from vqtrain.data.remote.files import read_small
from vqtrain.data.remote.urls import is_url
from vqtrain.data.sources.demo import Role
from vqtrain.errors import DataError

# The format in the index.json of ``vqtrain pack``, and its folder for each role.
PACK_FORMAT = "vqtrain-pack"
# Its folder inside a pack that is not complete.
UNFINISHED = ".pack"
_SPLITS: Mapping[Role, str] = {"training": "train", "validation": "val"}


def packed_shards(folder: str, media: Media, role: Role) -> list[str]:
    """List the shards of a packed folder for a role; none if it is not a packed folder.

    Raises:
        DataError: If it is a packed folder without such shards, or of other media.
    """
    pack = _read_pack(folder)
    if pack is None:
        if os.path.isdir(f"{folder}/{UNFINISHED}"):  # noqa: PTH112 - of a URL it is none
            raise DataError(
                f"{folder} is an unfinished pack: give the same vqtrain pack again to continue it"
            )
        return []
    packed = str(pack.get("media", IMAGE.word))
    if packed != media.word:
        raise DataError(f"{folder} is a pack of {packed}, and {media.noun}s are wanted here")
    shards = _shard_names(pack, _SPLITS[role])
    if not shards:
        raise DataError(f"{folder} is packed without {media.noun}s for {role}")
    return [f"{folder.rstrip('/')}/{name}" for name in shards]


def has_validation(source: str) -> bool:
    """Tell whether a source is a packed folder with samples for validation."""
    is_folder = is_url(source) or os.path.isdir(os.path.expanduser(source))  # noqa: PTH111, PTH112
    pack = _read_pack(os.path.expanduser(source)) if is_folder else None  # noqa: PTH111 - as above
    return pack is not None and bool(_shard_names(pack, _SPLITS["validation"]))


def _read_pack(folder: str) -> Mapping[str, object] | None:
    """Read the index.json of a packed folder; None if it is not a packed folder."""
    name = f"{folder.rstrip('/')}/index.json"
    if is_url(folder):
        content = read_small(name)
    else:
        content = None
        with suppress(OSError):
            content = Path(name).read_bytes()
    try:
        pack = json.loads(content or b"")
    except ValueError:
        return None
    return pack if isinstance(pack, dict) and pack.get("format") == PACK_FORMAT else None


def _shard_names(pack: Mapping[str, object], split: str) -> list[str]:
    """List the tars of a split, as paths below the packed folder."""
    side = pack.get(split)
    shards = side.get("shards") if isinstance(side, dict) else None
    return [shard["name"] for shard in shards] if isinstance(shards, list) else []
