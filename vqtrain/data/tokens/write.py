"""From pictures to tokens on disk, by one process or by many, each of which may be killed."""

import json
import re
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Int64, Shaped
from torch import Tensor

from vqtrain.data.batches import Batch
from vqtrain.data.cache import write_whole
from vqtrain.data.faults import most_left_out
from vqtrain.data.loaders import Loader
from vqtrain.data.packing.index import read_json
from vqtrain.data.packing.plan import part_of
from vqtrain.data.tokens.batches import TokenBatches
from vqtrain.data.tokens.flat import flatten
from vqtrain.data.tokens.index import (
    INDEX,
    PLAN,
    UNFINISHED,
    Identity,
    Report,
    check_files,
    check_same,
    read_report,
)
from vqtrain.data.tokens.plan import Plan, Share, shard_name
from vqtrain.data.tokens.read import ARRAY, SAMPLES
from vqtrain.data.tokens.shards import WholeShard, read_whole
from vqtrain.data.tokens.share import ShareWriter
from vqtrain.errors import ConfigError, DataError, VqtrainError

# Batches that may wait to be written while others are encoded.
AHEAD = 4

# From pixels, as a loader brings them, to the ids of each image, on any device.
Encode = Callable[[Shaped[Tensor, "b c h w"]], Int64[Tensor, " b *tokens"]]
# What is being written, pictures done so far, pictures in all, both of this process.
Progress = Callable[[str, int, int], None]


def write(
    plan: Plan,
    *,
    out: Path,
    encode: Encode,
    share: Share,
    num_workers: int,
    max_bad_fraction: float,
    progress: Progress,
) -> Report | None:
    """Encode pictures, or go on where an earlier call with the same plan was interrupted.

    What is in which file depends on the plan alone. After each batch a journal says how far a shard
    is; shards appear when they are whole, and index.json when all of all processes are.

    Args:
        plan: What to write.
        out: Folder of the tokens; it need not exist.
        encode: Called with full batches only.
        share: The part of this process.
        num_workers: Processes that load pictures; 0 loads them in this one.
        max_bad_fraction: Share of all pictures that may be unreadable; one always may, unless it
            is 0.
        progress: Told after each batch.

    Returns:
        What index.json holds, or None while shards of other processes are missing.

    Raises:
        ConfigError: If ``out`` holds something else, or tokens of other things.
        DataError: In mid-way, if too much cannot be read or ``out`` cannot be written.
    """
    report = _complete(out, plan)
    if report is not None:
        return report
    try:
        (out / UNFINISHED).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write out={out}: {error.strerror}") from error
    limit = most_left_out(max_bad_fraction, len(plan.pictures))
    try:
        with _claimed(out, plan, share) as writer:
            _encode(plan, encode, writer, num_workers, limit, progress)
        with _locked(out):
            return _conclude(plan, out, limit)
    except OSError as error:
        failure = DataError(
            f"cannot write {error.filename or out}: {error.strerror}; what is written is kept, "
            "and the same command goes on from there"
        )
        failure.exit_code = 1
        raise failure from error


def _complete(out: Path, plan: Plan) -> Report | None:
    """Return what a complete folder holds, if it is that of the plan."""
    if (out / INDEX).is_file():
        try:
            report = read_report(out)
        except DataError as error:
            raise ConfigError(f"out={out} holds something else: {error}") from error
        check_same(out, report, plan.identity)
        check_files(out, report["files"])
        shutil.rmtree(out / UNFINISHED, ignore_errors=True)  # a kill may have left it
        return report
    if out.is_dir():
        has_begun = (out / UNFINISHED / PLAN).is_file()
        for path in sorted(out.iterdir()):
            is_mine = re.fullmatch(rf"shard-\d{{5,}}\.tar|{ARRAY}|{SAMPLES}", path.name)
            if path.name != UNFINISHED and not (has_begun and is_mine):
                if (out / INDEX).is_file():  # another process has come to the end meanwhile
                    return _complete(out, plan)
                raise ConfigError(
                    f"out={out} holds {path.name}, which is not of vqtrain tokenize: give another "
                    "folder"
                )
    return None


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other processes from beginning or concluding at the same time."""
    lock = FileLock(out / UNFINISHED / "lock")
    with suppress(NotImplementedError):  # no locks on that disk
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _claimed(out: Path, plan: Plan, share: Share) -> Iterator[ShareWriter]:
    """Begin, or check what was begun, and keep others off the shards of a share.

    All processes at work have shares of the same number of parts. What is whole is looked up under
    the lock: the last process takes the notes of it away.
    """
    state = out / UNFINISHED
    mine = FileLock(state / f"share-{share.number}-of-{share.of}")
    with _locked(out):
        if (state / PLAN).is_file():
            check_same(out, cast(Identity, read_json(state / PLAN)), plan.identity)
        else:
            write_whole(state / PLAN, json.dumps(plan.identity).encode())
        _refuse_others(out, share)
        with suppress(NotImplementedError):
            mine.acquire()
        is_complete = (out / INDEX).is_file()  # by another process, since this one has begun
        writer = ShareWriter(plan, range(0) if is_complete else plan.shards(share), out=out)
    try:
        yield writer
    finally:
        writer.close()
        mine.release()


def _refuse_others(out: Path, share: Share) -> None:
    """Refuse to work beside a process that has some of the same shards."""
    for path in sorted((out / UNFINISHED).glob("share-*-of-*")):
        number, of = path.name.removeprefix("share-").split("-of-")
        if int(of) == share.of and int(number) != share.number:
            continue
        try:
            with suppress(NotImplementedError), FileLock(path, blocking=False):
                pass
        except Timeout:
            raise ConfigError(
                f"out={out} is being written by another vqtrain tokenize, of share={number}/{of}, "
                f"which has shards of share={share}"
            ) from None


def _encode(
    plan: Plan,
    encode: Encode,
    writer: ShareWriter,
    num_workers: int,
    limit: float,
    progress: Progress,
) -> None:
    """Write the shards of a share that are not whole."""
    left_out, total = writer.left_out, writer.total
    done = total - sum(len(image_ids) for _, image_ids in writer.rest)
    try:
        with closing(_encoded(plan, encode, writer, num_workers)) as encoded:
            for (shard, image_ids), batch in encoded:
                left_out += len(image_ids) - int(batch.mask.sum())
                _refuse_many(left_out, limit, plan, [asdict(fault) for fault in batch.faults])
                done += len(image_ids)
                progress(shard_name(shard), done, total)
    except VqtrainError as error:
        error.exit_code = 1  # whatever it is, it is met in mid-way
        raise


def _encoded(
    plan: Plan, encode: Encode, writer: ShareWriter, num_workers: int
) -> Generator[tuple[tuple[int, range], Batch]]:
    """Load, encode and write, each while the others are at work; yield what was encoded."""
    if not writer.rest:
        return
    image_ids = np.concatenate([np.array(ids) for _, ids in writer.rest])
    batches = TokenBatches(
        part_of(plan.pictures, image_ids),
        counts=[len(ids) for _, ids in writer.rest],
        preparation=plan.settings.preparation,
        batch_size=plan.settings.batch_size,
    )
    loader = Loader(batches, numbers=range(len(writer.rest)), num_workers=num_workers)
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for place, batch in zip(writer.rest, loader, strict=True):
            token_ids = encode(batch.images)
            waiting.append(pool.submit(writer.add, *place, batch, token_ids))
            if len(waiting) > AHEAD:
                waiting.popleft().result()
            yield place, batch
        for written in waiting:
            written.result()


def _refuse_many(
    left_out: int, limit: float, plan: Plan, skipped: Sequence[Mapping[str, str]]
) -> None:
    if left_out > limit:
        last = skipped[-1]
        failure = DataError(
            f"{left_out} of {len(plan.pictures)} pictures cannot be used, more than "
            f"max_bad_fraction allows; the last one, {last['key']!r} in {last['shard']}: "
            f"{last['reason']}; what is written is kept: give a larger max_bad_fraction to go on, "
            "or mend the pictures and give another out"
        )
        failure.exit_code = 1
        raise failure


def _conclude(plan: Plan, out: Path, limit: float) -> Report | None:
    """Write index.json if all shards are whole, which it says by being there."""
    state, folder = out / UNFINISHED, plan.folder(out)
    if not (out / INDEX).is_file():
        shards: list[WholeShard] = []
        for shard in plan.shards(Share(number=0, of=1)):
            found = read_whole(state, shard_name(shard), folder)
            if found is None:
                return None
            shards.append(found)
        skipped = [fault for found in shards for fault in found["skipped"]]
        files = [found["shard"] for found in shards]
        samples = sum(entry["samples"] for entry in files)
        _refuse_many(len(plan.pictures) - samples, limit, plan, skipped)
        if plan.settings.layout == "flat":
            form = plan.identity["tokens"]
            files = flatten(files, form, folder=folder, state=state, out=out)
        report = Report(
            **plan.identity,
            samples=samples,
            bytes=sum(entry["bytes"] for entry in files),
            files=files,
            skipped=[*map(asdict, plan.pictures.faults), *skipped],
        )
        write_whole(state / INDEX, json.dumps(report, indent=1).encode())
        (state / INDEX).replace(out / INDEX)
    shutil.rmtree(state, ignore_errors=True)  # another process may be leaving it, too
    return read_report(out)
