"""Clips and sounds inside a page, limited in their bytes."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from vqtrain.reports.blocks import Block, Player, Players, Text
from vqtrain.reports.images import RGB, encode

TYPES = {".mp4": "video/mp4", ".wav": "audio/wav"}
BOTH = "original and reconstruction"


@final
@dataclass(frozen=True, kw_only=True)
class Played:
    """A clip or a sound with its reconstruction.

    Attributes:
        name: Its name.
        caption: Figures, for people.
        files: By suffix, as of ``vqtrain.drawing.files.to_files``.
        stills: What is shown before a clip plays, next to each other.
    """

    name: str
    caption: str
    files: Mapping[str, bytes]
    stills: tuple[RGB, ...] = ()


def players(label: str, played: Iterable[Played], *, limit: int) -> list[Block]:
    """Embed as many as fit, with a note on those that did not.

    Args:
        label: What they are.
        played: From the most important one on; those without files are passed over.
        limit: Bytes that they may add.
    """
    items, left_out = list[Player](), 0
    for each in played:
        player = _player(each)
        size = sum(len(uri) for _, uri in player.sources) + len(player.poster)
        if left_out or size > limit:
            left_out += bool(player.sources)
            continue
        limit -= size
        items += [player] if player.sources else []
    blocks: list[Block] = [Players(label=label, items=items)] if items else []
    if left_out:
        text = f"{label}: {left_out} left out of the players to keep this page small."
        blocks.append(Text(text=text, tone="note"))
    return blocks


def _player(played: Played) -> Player:
    sources = []
    for suffix, content in played.files.items():
        name, _, kind = suffix.rpartition(".")
        encoded = base64.b64encode(content).decode()
        uri = f"data:{TYPES[f'.{kind}']};base64,{encoded}"
        sources.append((name.removeprefix(".") or BOTH, uri))
    poster = encode(np.concatenate(played.stills, axis=1)) if played.stills else ""
    return Player(name=played.name, caption=played.caption, sources=sources, poster=poster)
