"""From images of any kind to a pack: WebDataset shards, lists of their members, index.json."""

import os
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Int64

from vqtrain.data.faults import Fault
from vqtrain.data.loading.loaders import explained_workers
from vqtrain.data.packing.base import PackSettings
from vqtrain.data.packing.plan import SPLITS, Plan, make_plan, split
from vqtrain.data.packing.report import Report, make_report, shard_name
from vqtrain.data.packing.samples import make_note
from vqtrain.data.packing.workers import map_images
from vqtrain.data.shards.folder import ALL, Progress, ShardFolder
from vqtrain.data.shards.writer import END_BYTES, ShardWriter, read_whole, tar_members
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.packs import UNFINISHED
from vqtrain.errors import ConfigError, DataError


def pack(
    images: SampleIndex, *, out: Path, settings: PackSettings, num_workers: int, progress: Progress
) -> Report:
    """Pack images, or continue where an earlier call with the same arguments was interrupted.

    The content of each shard depends only on the images and the settings. A shard appears when it
    is complete, and index.json when all shards are.

    Args:
        images: The images to pack.
        out: Folder of the pack; it need not exist.
        settings: The settings.
        num_workers: Processes that read and encode; 0 for this process.
        progress: Called for every image.

    Returns:
        The content of index.json.

    Raises:
        ConfigError: If ``out`` holds something else, or a pack of other images or settings.
        DataError: If no image can be read, or ``out`` can no longer be written.
    """
    inside = f"{out.absolute()}{os.sep}"
    if any(path.startswith(inside) for path in images.paths):
        raise ConfigError(f"out={out} holds some of the {images.media.noun}s: give another folder")
    plan = make_plan(images, settings)
    folder = ShardFolder(
        out=out,
        command="vqtrain pack",
        content="a pack",
        unfinished=UNFINISHED,
        files=rf"({'|'.join(SPLITS)})/shard-\d{{5,}}\..*",
        folders=SPLITS,
        identity=plan.identity,
    )
    report = folder.read_complete()
    if report is None:
        with folder.claimed(ALL, folder.read_complete) as report, folder.failures():
            if report is None:
                return _pack(plan, folder, num_workers, progress)
    return cast(Report, report)


def _pack(plan: Plan, folder: ShardFolder, num_workers: int, progress: Progress) -> Report:
    with explained_workers(num_workers):
        val_ids = _held_out(plan, folder, num_workers)
        counts = {
            name: _pack_side(name, plan, val_ids, folder, num_workers, progress) for name in SPLITS
        }
    report = make_report(plan, folder, counts)
    folder.complete(report)
    return report


def _held_out(plan: Plan, folder: ShardFolder, num_workers: int) -> Int64[np.ndarray, " m"]:
    """Decide which images are held out, or read an earlier decision."""
    val_ids = None
    if not folder.has_begun:
        val_ids = split(plan, num_workers=num_workers)
        is_needed = plan.settings.val != 0
        if len(val_ids) == len(plan.images) or (is_needed and len(val_ids) == 0):
            raise ConfigError(
                f"val={plan.settings.val} leaves none of {len(plan.images)} "
                f"{plan.images.media.noun}s on one side, as equal ones stay together: give val=0 "
                "or another share"
            )
    begun = folder.begin(val_ids=[] if val_ids is None else val_ids.tolist())
    return np.array(begun["val_ids"], dtype=np.int64)


def _pack_side(
    name: str,
    plan: Plan,
    val_ids: Int64[np.ndarray, " m"],
    folder: ShardFolder,
    num_workers: int,
    progress: Progress,
) -> int:
    """Write the incomplete shards of one side of the split; return the number of its shards."""
    image_ids = plan.side(name, val_ids)
    if not len(image_ids):
        return 0
    before = 0 if name == SPLITS[0] else len(plan.images) - len(image_ids)
    number = done = 0
    while whole := read_whole(folder.state, shard_name(name, number), folder.out):
        number, done = number + 1, done + whole["writes"]
    writer = ShardWriter(state=folder.state, name=shard_name(name, number))
    done += writer.writes
    samples = map_images(plan.sample, image_ids[done:], plan.images, num_workers=num_workers)
    try:
        for image_id, sample in zip(image_ids[done:].tolist(), samples, strict=True):
            progress(shard_name(name, number), before + done, len(plan.images))
            done += 1
            if isinstance(sample, Fault):
                writer.add(b"", samples=0, skipped=[sample])
                continue
            key = plan.keys[image_id]
            content = tar_members([(key, sample.fields)])
            size = writer.bytes + len(content) + END_BYTES
            if writer.samples and size > plan.settings.shard_size * 1e6:
                writer.finish(folder.out)
                number += 1
                writer = ShardWriter(state=folder.state, name=shard_name(name, number), is_new=True)
            note = make_note(image_id, sample, content, offset=writer.bytes)
            writer.add(content, samples=1, skipped=[], notes=[note.listed()])
        if writer.samples:
            writer.finish(folder.out)
            progress(shard_name(name, number), before + done, len(plan.images))
            number += 1
    finally:
        samples.close()
        writer.close()
    if number == 0:
        first = writer.skipped[0]
        raise DataError(
            f"none of {len(image_ids)} {plan.images.media.noun}s for {name} can be read: the "
            f"first, {first['key']!r} in {first['shard']}: {first['reason']}"
        )
    return number
