"""From images of any kind to a pack: WebDataset shards, a list of their members, an index.json."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Int64

from vqtrain.data.cache import write_whole
from vqtrain.data.faults import Fault
from vqtrain.data.index import ImageIndex
from vqtrain.data.packing.index import (
    FORMAT,
    INDEX,
    Beginning,
    Report,
    check_same,
    check_shards,
    identify,
    read_json,
    write_index,
)
from vqtrain.data.packing.pictures import PackSettings, pack_chunk
from vqtrain.data.packing.plan import SPLITS, Plan, make_plan, split
from vqtrain.data.packing.shards import (
    END_BYTES,
    ShardState,
    ShardWriter,
    read_state,
    tar_pieces,
)
from vqtrain.data.packing.workers import Workers
from vqtrain.data.sources import UNFINISHED
from vqtrain.errors import ConfigError, DataError

PLAN = "plan.json"

# What is being packed, images done so far, images in all.
Progress = Callable[[str, int, int], None]


def pack(
    images: ImageIndex, *, out: Path, settings: PackSettings, num_workers: int, progress: Progress
) -> Report:
    """Pack images, or continue where an earlier call with the same arguments was interrupted.

    What is packed into which shard depends on the images and the settings alone. A shard appears
    when it is whole, and index.json when all are: memory and what an interruption costs are those
    of one shard.

    Args:
        images: What to pack.
        out: Folder of the pack; it need not exist.
        settings: What decides the bytes.
        num_workers: Processes that read and encode; 0 does it in this one.
        progress: Told after every few images.

    Returns:
        What index.json holds.

    Raises:
        ConfigError: If ``out`` holds something else, or a pack of other images or settings.
        DataError: If no image can be read, or in mid-way ``out`` cannot be written.
    """
    inside = f"{out.absolute()}{os.sep}"
    if any(path.startswith(inside) for path in images.paths):
        raise ConfigError(f"out={out} holds some of the images: give another folder")
    with _claim(out):
        try:
            return _pack(make_plan(images, settings), out, num_workers, progress)
        except OSError as error:
            failure = DataError(
                f"cannot write {error.filename or out}: {error.strerror}; what is whole is kept, "
                "and the same command goes on from there"
            )
            failure.exit_code = 1
            raise failure from error


def _pack(plan: Plan, out: Path, num_workers: int, progress: Progress) -> Report:
    if (out / INDEX).is_file():
        report = cast(Report, read_json(out / INDEX))
        check_same(out, report, identify(plan))
        check_shards(out, report)
    else:
        with Workers(num_workers=num_workers) as workers:
            val_ids = _begin(out, plan, workers)
            sides = [_pack_side(name, plan, val_ids, out, workers, progress) for name in SPLITS]
        report = write_index(plan, out, out / UNFINISHED, sides)
    shutil.rmtree(out / UNFINISHED)
    return report


@contextmanager
def _claim(out: Path) -> Iterator[None]:
    """Make the folder, or check that it is a pack, and keep other processes off."""
    is_new = not out.exists()
    try:
        foreign = next(_foreign(out), None) if out.exists() else None
        if foreign is not None:
            raise ConfigError(
                f"out={out} holds {foreign}, which is not of a pack: give another folder"
            )
        (out / UNFINISHED).mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / UNFINISHED / "lock")
        with suppress(NotImplementedError):  # no locks on that disk
            lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(f"out={out} is being written by another vqtrain pack") from None
    except OSError as error:
        raise ConfigError(f"cannot write out={out}: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # leaves nothing behind if nothing was begun
            (out / UNFINISHED / "lock").unlink()
            (out / UNFINISHED).rmdir()
            if is_new:
                out.rmdir()


def _foreign(out: Path) -> Iterator[str]:
    has_begun = (out / INDEX).is_file() or (out / UNFINISHED / PLAN).is_file()
    for path in sorted(out.iterdir()):
        if path.name in SPLITS and path.is_dir():
            for file in sorted(path.iterdir()):
                if not has_begun or not re.match(r"shard-\d{5,}\.", file.name):
                    yield f"{path.name}/{file.name}"
        elif path.name not in (INDEX, UNFINISHED):
            yield path.name
    if (out / INDEX).is_file():
        with suppress(DataError):
            found = read_json(out / INDEX)
            if isinstance(found, dict) and found.get("format") == FORMAT:
                return
        yield INDEX


def _begin(out: Path, plan: Plan, workers: Workers) -> Int64[np.ndarray, " m"]:
    """Decide what is held out, or read what was decided."""
    file = out / UNFINISHED / PLAN
    if file.is_file():
        begun = cast(Beginning, read_json(file))
        check_same(out, begun, identify(plan))
        return np.array(begun["val_ids"], dtype=np.int64)
    val_ids = split(plan, workers)
    is_needed = plan.settings.val != 0
    if len(val_ids) == len(plan.pictures) or (is_needed and len(val_ids) == 0):
        raise ConfigError(
            f"val={plan.settings.val} leaves none of {len(plan.pictures)} images on one side, as "
            "equal images stay together: give val=0 or another share"
        )
    beginning = Beginning(**identify(plan), val_ids=val_ids.tolist())
    write_whole(file, json.dumps(beginning).encode())
    return val_ids


def _pack_side(
    name: str,
    plan: Plan,
    val_ids: Int64[np.ndarray, " m"],
    out: Path,
    workers: Workers,
    progress: Progress,
) -> list[ShardState]:
    """Write the shards of one side of the split that are not there yet."""
    state = out / UNFINISHED
    image_ids = plan.side(name, val_ids)
    before = 0 if name == SPLITS[0] else len(plan.pictures) - len(image_ids)
    states: list[ShardState] = []
    while found := read_state(out, state, f"{name}/shard-{len(states):05d}"):
        states.append(found)
    done = states[-1]["end"] if states else 0
    samples = (
        sample for some in workers.map(pack_chunk, plan.chunks(image_ids[done:])) for sample in some
    )
    writer: ShardWriter | None = None
    try:
        for image_id, sample in zip(image_ids[done:].tolist(), samples, strict=True):
            shard = f"{name}/shard-{len(states):05d}"
            progress(shard, before + done, len(plan.pictures))
            if writer is None:
                writer = ShardWriter(out=out, state=state, name=shard)
            if isinstance(sample, Fault):
                writer.skip(sample)
            else:
                pieces = tar_pieces(plan.keys[image_id], sample)
                size = writer.bytes + sum(map(len, pieces)) + END_BYTES
                if writer.samples and size > plan.settings.shard_size * 1e6:
                    states.append(writer.finish(done))
                    shard = f"{name}/shard-{len(states):05d}"
                    writer = ShardWriter(out=out, state=state, name=shard)
                writer.add(image_id, plan.keys[image_id], sample, pieces)
            done += 1
        if writer is not None and writer.samples:
            states.append(writer.finish(done))
    finally:
        if writer is not None:
            writer.close()
    if not states and writer is not None:
        raise DataError(
            f"none of {len(image_ids)} images for {name} can be read: the first, "
            f"{writer.skipped[0]['key']!r} in {writer.skipped[0]['shard']}: "
            f"{writer.skipped[0]['reason']}"
        )
    return states
