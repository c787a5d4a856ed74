"""``vqtrain pack``: images of any kind become WebDataset shards and an index.json."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from vqtrain.app.findings import count_cores
from vqtrain.app.keys import describe, read_keys
from vqtrain.app.output import ending_in_order, expand, refuse_inside
from vqtrain.app.progress import shown_progress
from vqtrain.build import bind
from vqtrain.data.packing.images import FORMATS, PackSettings
from vqtrain.data.packing.pack import pack
from vqtrain.data.packing.report import Report
from vqtrain.data.shards.folder import INDEX
from vqtrain.data.sources import open_images
from vqtrain.errors import ConfigError, Interrupted

KEYS: dict[str, tuple[object, str]] = {
    "images": (None, "what to pack: demo, a folder, a glob, tars, a URL or a list of these"),
    "out": ("packed", "folder of the shards; an interrupted pack in it is continued"),
    "image_size": (None, "largest short side in px: longer ones are reduced, none is enlarged"),
    "format": ("keep", f"{', '.join(FORMATS)}: how pictures are stored"),
    "quality": (95, "1 to 100, of JPEG and WebP that are encoded anew"),
    "shard_size": (256, "largest size of a shard in MB"),
    "val": ("auto", "share held out in val/: auto (2 %, 16 to 5,000 images), or 0 to 0.5"),
    "num_workers": (None, "processes that read and encode; null is one for each core"),
}

USAGE = f"""usage: vqtrain pack images=IMAGES [out=DIR] [key=value ...]

Writes DIR/train/shard-00000.tar and so on, DIR/val/shard-00000.tar and so on, and at the end
DIR/index.json: counts, sha256 and sizes of each shard, what was skipped, which pictures are equal.

keys:
{describe(KEYS)}

A picture that is in the format asked for and small enough keeps its bytes. One that is encoded anew
is turned upright and has 8 bits; in JPEG its transparent parts become white. Pictures of more than
8 bits and npy arrays always keep their bytes.
Keys of samples are paths below the folder: cats/001.jpg is cats/001. Files of the same stem, such
as cats/001.txt or cats/001.json, become fields of the sample, as do the other members of a sample
in a tar on this machine; of remote images, pictures alone are packed.
Pictures that cannot be read are skipped and listed. Equal pictures are listed and all packed, on
the same side of the split. The order is shuffled, the same in each run.

options:
  --help   show this

examples:
  vqtrain pack images=~/photographs out=photographs-packed
  vqtrain pack images=~/photographs out=photographs-512 image_size=512 format=webp quality=90
"""

MAX_NAMED = 3


def main(words: Sequence[str]) -> int:
    """Pack, or show the help."""
    values = read_keys("vqtrain pack", words, KEYS)
    if values is None:
        sys.stdout.write(USAGE)
        return 0
    return bind(run, values, where="vqtrain pack")


def run(
    *,
    images: str | list[str | dict[str, object]] | None,
    out: str,
    image_size: int | None,
    format: str,  # noqa: A002 - the key's name
    quality: int,
    shard_size: float,
    val: float | str,
    num_workers: int | None,
) -> int:
    """Pack, and say what came of it; the arguments are those of ``KEYS``."""
    if not images or not out:
        raise ConfigError("name the images: vqtrain pack images=A_FOLDER_OF_PICTURES out=DIR")
    if num_workers is None:
        num_workers = count_cores()
    if num_workers < 0:
        raise ConfigError(f"num_workers must be at least 0, got {num_workers}")
    settings = PackSettings(
        image_size=image_size, format=format, quality=quality, shard_size=shard_size, val=val
    )
    folder = expand(out)
    refuse_inside(folder, images)
    console = Console(highlight=False, soft_wrap=True)
    index = open_images(images, role="training")
    was_complete = (folder / INDEX).is_file()
    try:
        with (
            ending_in_order(),
            shown_progress(console, "looking for equal pictures") as progress,
        ):
            report = pack(
                index, out=folder, settings=settings, num_workers=num_workers, progress=progress
            )
    except (KeyboardInterrupt, Interrupted):
        console.print("stopped; the shards that are whole are kept: the same command goes on")
        raise
    if was_complete:
        console.print(f"{folder} was complete already", markup=False)
    conclude(console, folder, report)
    return 0


def conclude(console: Console, out: Path, report: Report) -> None:
    """Say what is in the pack, and what can be done with it."""
    for name, side in (("train", report["train"]), ("val", report["val"])):
        console.print(
            f"{name:<12}{side['samples']:,} samples in {len(side['shards']):,} shards, "
            f"{side['bytes'] / 1e6:,.1f} MB"
        )
    skipped = [
        f"{fault['key'] or fault['shard']}: {fault['reason']}" for fault in report["skipped"]
    ]
    duplicates = [" = ".join(keys[:MAX_NAMED]) for keys in report["duplicates"]]
    lists = {"skipped": skipped, "duplicates": duplicates}
    for name, lines in lists.items():
        console.print(
            f"{name:<12}{len(lines):,}{f', all in {out / INDEX}' * bool(lines)}", markup=False
        )
        for line in lines[:MAX_NAMED]:
            console.print(f"{'':<12}{line}", markup=False)
    console.print("try next:")
    console.print(f"  vqtrain train data.train={shlex.quote(str(out))}", markup=False)
