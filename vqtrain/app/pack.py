"""``vqtrain pack``: images of any kind become WebDataset shards and an index.json."""

import json
import shlex
from pathlib import Path
from typing import Annotated, final

from rich.console import Console

from vqtrain.app.base import Command
from vqtrain.app.parts.output import ending_in_order, folder_of, refuse_inside
from vqtrain.app.parts.progress import shown_progress
from vqtrain.data.packing.images import PackSettings
from vqtrain.data.packing.pack import pack
from vqtrain.data.packing.report import Report
from vqtrain.data.settings.image import ImageSize
from vqtrain.data.shards.folder import INDEX
from vqtrain.data.sources.find import open_samples
from vqtrain.errors import Interrupted
from vqtrain.ops.cores import count_cores
from vqtrain.ranges import at_least

MAX_NAMED = 3


@final
class Pack(Command):
    """Packs images."""

    def run(
        self,
        *,
        images: str | list[str | dict[str, object]],
        out: str,
        image_size: ImageSize | None,
        crop: str,
        format: str,  # noqa: A002 - the key's name
        quality: int,
        shard_size: float,
        val: float | str,
        num_workers: Annotated[int, at_least(0)] | None,
    ) -> int:
        """Pack, and say what came of it."""
        num_workers = count_cores() if num_workers is None else num_workers
        settings = PackSettings(
            image_size=image_size,
            crop=crop,
            format=format,
            quality=quality,
            shard_size=shard_size,
            val=val,
        )
        folder = folder_of(out)
        refuse_inside(folder, images)
        console = Console(highlight=False, soft_wrap=True)
        index = open_samples(images, role="training")
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
            console.print("stopped, shards are kept: run the same command again to continue")
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
    command = f"vqtrain train data.train={shlex.quote(str(out))}"
    if report["settings"]["format"] == "raw":
        size = json.dumps(report["settings"]["image_size"], separators=(",", ":"))
        command += f" {shlex.quote(f'data.image_size={size}')}"
    console.print("try next:")
    console.print(f"  {command}", markup=False)
