"""``vqtrain pack``: images, videos or sounds become WebDataset shards and an index.json."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, final

from rich.console import Console

from vqtrain.app.base import Command
from vqtrain.app.parts.output import ending_in_order, folder_of, refuse_inside
from vqtrain.app.parts.progress import shown_progress
from vqtrain.app.parts.sources import SampleSources
from vqtrain.build import bind
from vqtrain.data.media import IMAGE, SOUND, VIDEO, Media
from vqtrain.data.packing.base import PackSettings
from vqtrain.data.packing.clips import DEFAULT_CRF, DEFAULT_KEY_EVERY, ClipPack
from vqtrain.data.packing.images import DEFAULT_CROP, DEFAULT_QUALITY, ImagePack
from vqtrain.data.packing.pack import pack
from vqtrain.data.packing.report import Report
from vqtrain.data.packing.sounds import SoundPack
from vqtrain.data.settings.image import ImageSize
from vqtrain.data.shards.folder import INDEX
from vqtrain.data.sources.find import open_samples
from vqtrain.errors import ConfigError, Interrupted
from vqtrain.ops.cores import count_cores
from vqtrain.ranges import at_least

MAX_NAMED = 3
# The settings of packs of each media.
SETTINGS: Mapping[Media, type[PackSettings]] = {
    IMAGE: ImagePack,
    VIDEO: ClipPack,
    SOUND: SoundPack,
}
# Keys for samples of some media only, and what they are where they are not given.
OF_MEDIA: Mapping[Media, Mapping[str, object]] = {
    IMAGE: {"image_size": None, "crop": DEFAULT_CROP, "quality": DEFAULT_QUALITY},
    VIDEO: {"image_size": None, "key_every": DEFAULT_KEY_EVERY, "crf": DEFAULT_CRF},
    SOUND: {"sample_rate": None},
}


@final
class Pack(Command):
    """Packs images, videos or sounds."""

    def run(
        self,
        *,
        sources: SampleSources,
        out: str,
        image_size: ImageSize | None,
        crop: str,
        format: str,  # noqa: A002 - the key's name
        quality: int,
        key_every: int,
        crf: int,
        sample_rate: int | None,
        shard_size: float,
        val: float | str,
        num_workers: Annotated[int, at_least(0)] | None,
    ) -> int:
        """Pack, and say what came of it."""
        num_workers = count_cores() if num_workers is None else num_workers
        named, media = sources.named("vqtrain pack images=IMAGES")
        given: dict[str, object] = {
            "image_size": image_size,
            "crop": crop,
            "quality": quality,
            "key_every": key_every,
            "crf": crf,
            "sample_rate": sample_rate,
        }
        settings = make_settings(
            media, given, {"format": format, "shard_size": shard_size, "val": val}
        )
        folder = folder_of(out)
        refuse_inside(folder, named)
        console = Console(highlight=False, soft_wrap=True)
        index = open_samples(named, media, role="training", key=media.key)
        was_complete = (folder / INDEX).is_file()
        try:
            with (
                ending_in_order(),
                shown_progress(console, f"looking for equal {media.noun}s", media.noun) as progress,
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


def make_settings(
    media: Media, given: Mapping[str, object], shared: Mapping[str, object]
) -> PackSettings:
    """Make the settings of a pack.

    Args:
        media: What is packed.
        given: The keys of ``OF_MEDIA``, with their values.
        shared: The keys of all media, with their values.

    Raises:
        ConfigError: If a value is invalid, or a key is for other media.
    """
    own = {key: given[key] for key in OF_MEDIA[media]}
    for other, keys in OF_MEDIA.items():
        for key, default in keys.items():
            if key not in own and given[key] != default:
                raise ConfigError(f"{key} is for {other.key}, and {media.key} are given")
    return bind(SETTINGS[media], {**shared, **own}, where="")


def conclude(console: Console, out: Path, report: Report) -> None:
    """Say what is in the pack, and what can be done with it."""
    for name, side in (("train", report["train"]), ("val", report["val"])):
        shards = "1 shard" if len(side["shards"]) == 1 else f"{len(side['shards']):,} shards"
        console.print(
            f"{name:<12}{side['samples']:,} samples in {shards}, {side['bytes'] / 1e6:,.1f} MB"
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
    source = f"data.train={shlex.quote(str(out))}"
    command = f"vqtrain train {source}"
    if report["media"] != IMAGE.word:  # whose networks are not those of the default
        command = f"vqtrain train experiment={report['media']}_demo {source} name=mine"
    if report["settings"].get("format") == "raw":
        size = json.dumps(report["settings"]["image_size"], separators=(",", ":"))
        command += f" {shlex.quote(f'data.image_size={size}')}"
    if report["settings"].get("sample_rate"):
        command += f" data.sample_rate={report['settings']['sample_rate']}"
    console.print("try next:")
    console.print(f"  {command}", markup=False)
