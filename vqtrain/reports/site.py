"""The site of a leaderboard: its page, and the pictures that it shows, as files beside it."""

import json
import re
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from vqtrain.data.cache import write_whole
from vqtrain.evaluation import leaderboard
from vqtrain.evaluation.leaderboard import DIGITS, Board
from vqtrain.evaluation.results import TokenizerResult, read_image_values
from vqtrain.evaluation.side_by_side import panels_of
from vqtrain.evaluation.tables import PARQUET_FILE
from vqtrain.metrics.parts.declarations import declaration
from vqtrain.reports.blocks import figure
from vqtrain.reports.images import read_image, to_webp
from vqtrain.reports.leaderboard import Pictures, leaderboard_page
from vqtrain.reports.render import render
from vqtrain.reports.series import label
from vqtrain.shapes import sides

PAGE, PICTURES = "index.html", "pictures"
# Folders of pictures; whatever else lies beside them is somebody else's.
OWN = re.compile(rf"(?:original-)?[0-9a-f]{{{DIGITS}}}")


def write_site(board: Board, folder: Path, *, rows: Path) -> None:
    """Write the page, its pictures and ``leaderboard.json``.

    Args:
        board: What has been found so far.
        folder: Where to; pictures that are no longer shown are removed from it.
        rows: The folder of the evaluation of each row, by its key.

    Raises:
        OSError: If it cannot be written.
    """
    shown = pictures_of(board, folder / PICTURES, rows)
    page = leaderboard_page(board, shown)
    write_whole(folder / PAGE, render(page).encode("utf-8", "backslashreplace"))
    leaderboard.save(board, folder)


def pictures_of(board: Board, folder: Path, rows: Path) -> Pictures:
    """Write the pictures that are not there yet, and remove those that are no longer shown."""
    known = json.dumps([board.images, board.protocol], sort_keys=True)
    home = f"original-{sha256(known.encode()).hexdigest()[:DIGITS]}"
    names: Sequence[str] = ()
    originals: Sequence[str] = ()
    found: dict[str, Sequence[tuple[str, str]]] = {}
    for row, result in board.measured:
        files = sorted((rows / row.key / "first").glob("*.png"))
        pairs = [
            (folder / home / f"{n}.webp", folder / row.key / f"{n}.webp") for n in range(len(files))
        ]
        for file, pair in zip(files, pairs, strict=True):
            split(file, result, pair)
        keys, captions = captions_of(rows / row.key / PARQUET_FILE, len(files))
        found[row.name] = [
            (f"{PICTURES}/{row.key}/{place}.webp", caption)
            for place, caption in enumerate(captions)
        ]
        if len(pairs) > len(originals):
            names = keys
            originals = [f"{PICTURES}/{home}/{place}.webp" for place in range(len(pairs))]
    kept = {home, *(row.key for row, _ in board.measured)}
    for other in folder.iterdir() if folder.is_dir() else []:
        if other.name not in kept and OWN.fullmatch(other.name):
            shutil.rmtree(other)
    return Pictures(names=names, originals=originals, reconstructions=found)


def split(file: Path, result: TokenizerResult, pair: tuple[Path, Path]) -> None:
    """Write the original and the reconstruction of a picture, if they are not there yet."""
    missing = {place for place, each in enumerate(pair) if not each.is_file()}
    picture = read_image(file) if missing else None
    panels = None if picture is None else panels_of(picture, sides(result.image_size))
    for place, panel in enumerate(panels or []):
        if place in missing:
            write_whole(pair[place], to_webp(panel))


def captions_of(file: Path, count: int) -> tuple[list[str], list[str]]:
    """Name the first images of an evaluation, and say how near each reconstruction is."""
    found = read_image_values(file)
    metric = next((name for name in found.values if "/" not in name), None)
    keys = [*found.keys[:count], *(f"image {n + 1}" for n in range(len(found.keys), count))]
    if metric is None:
        return keys, [""] * count
    unit = declaration(metric).unit or label(metric)
    values = found.values[metric][:count]
    return keys, [f"{figure(float(value), decimals=2)} {unit}" for value in values]
