"""From images to tokens on disk, by one process or several, each of which can be killed."""

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from vqtrain.data.faults import most_left_out
from vqtrain.data.loading.batches import Batch
from vqtrain.data.loading.loaders import Loader, explained_workers
from vqtrain.data.shards.folder import ALL, Progress, ShardFolder, Share
from vqtrain.data.shards.writer import WholeShard, read_whole
from vqtrain.data.tokens.batches import TokenBatches
from vqtrain.data.tokens.flat import flatten
from vqtrain.data.tokens.plan import Plan, shard_name
from vqtrain.data.tokens.read import ARRAY, SAMPLES
from vqtrain.data.tokens.report import UNFINISHED, Report, read_report
from vqtrain.data.tokens.share import ShareWriter
from vqtrain.data.tokens.statistics import statistics_of
from vqtrain.errors import BadSampleError, FailedError, as_failure

# Batches that can wait to be written while others are encoded.
AHEAD = 4

# From pixels to the ids of each sample, on any device; or to its latents, channels last.
Encode = Callable[[Shaped[Tensor, "b c *size"]], Shaped[Tensor, " b *tokens"]]
# From the height and width of an image to a field that its ids need.
Describe = Callable[[tuple[int, int]], tuple[str, bytes]]


def write(
    plan: Plan,
    *,
    out: Path,
    encode: Encode,
    share: Share,
    num_workers: int,
    max_bad_fraction: float,
    progress: Progress,
    describe: Describe | None = None,
) -> Report | None:
    """Encode images, or continue where an earlier call with the same plan was interrupted.

    The content of each file depends only on the plan. A journal records the progress of a shard
    after each batch. Shards appear when they are complete, and index.json when those of all
    processes are.

    Args:
        plan: The plan.
        out: Folder of the tokens; it need not exist.
        encode: Called with full batches only; may refuse a batch of one by a BadSampleError.
        share: The part of this process.
        num_workers: Processes that load images; 0 for this process.
        max_bad_fraction: Largest share of all images that may be bad; at least one may, unless it
            is 0.
        progress: Called after each batch.
        describe: Makes a field of each image from its size, if images are of any.

    Returns:
        The content of index.json, or None while shards of other processes are missing.

    Raises:
        ConfigError: If ``out`` holds something else, or tokens of another plan.
        FailedError: If too many images are bad, or ``out`` can no longer be written.
    """
    folder = ShardFolder(
        out=out,
        command="vqtrain tokenize",
        content=plan.kind,
        unfinished=UNFINISHED,
        files=rf"shard-\d{{5,}}\.tar|{ARRAY}|{SAMPLES}",
        identity=plan.identity,
    )
    report = folder.read_complete()
    if report is not None:
        return cast(Report, report)
    limit = most_left_out(max_bad_fraction, len(plan.images))

    def begin() -> ShareWriter | Mapping[str, object]:
        # The last process removes the records of complete shards when it completes the folder.
        complete = folder.read_complete()
        if complete is not None:
            return complete
        folder.begin()
        return ShareWriter(plan, plan.shards(share), folder=folder)

    with folder.failures():
        with folder.claimed(share, begin) as begun:
            if not isinstance(begun, ShareWriter):
                return cast(Report, begun)
            with closing(begun):
                _encode(plan, encode, describe, begun, num_workers, limit, progress)
        with folder.locked():
            return _conclude(plan, folder, limit)


def _encode(
    plan: Plan,
    encode: Encode,
    describe: Describe | None,
    writer: ShareWriter,
    num_workers: int,
    limit: float,
    progress: Progress,
) -> None:
    """Write the incomplete shards of a share."""
    skipped, total = writer.skipped, writer.total
    done = total - sum(len(image_ids) for _, image_ids in writer.rest)
    with (
        explained_workers(num_workers),
        as_failure(),
        closing(_encoded(plan, encode, describe, writer, num_workers)) as encoded,
    ):
        for (shard, image_ids), batch in encoded:
            skipped += len(image_ids) - int(batch.mask.sum())
            _refuse_many(skipped, limit, plan, [asdict(fault) for fault in batch.faults])
            done += len(image_ids)
            progress(shard_name(shard), done, total)


def _encoded(
    plan: Plan,
    encode: Encode,
    describe: Describe | None,
    writer: ShareWriter,
    num_workers: int,
) -> Generator[tuple[tuple[int, range], Batch]]:
    """Load, encode and write at the same time; yield what was encoded."""
    if not writer.rest:
        return
    image_ids = np.concatenate([np.array(ids) for _, ids in writer.rest])
    batches = TokenBatches(
        plan.images.part(image_ids),
        counts=[len(ids) for _, ids in writer.rest],
        transform=plan.settings.transform,
        batch_size=plan.settings.batch_size,
        keeps_whole=plan.settings.any_size is not None,
    )
    loader = Loader(batches, numbers=range(len(writer.rest)), num_workers=num_workers)
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for part, batch in zip(writer.rest, loader, strict=True):
            try:
                token_ids = encode(batch.samples)
            except BadSampleError as error:  # one that is kept whole is too small for a token
                token_ids = torch.zeros(len(batch.mask), 0, dtype=torch.int64)
                batch.mask[:] = False
                batch.faults.append(plan.images.fault(part[1][0], str(error)))
            if describe is not None:
                height, width = batch.samples.shape[2:]
                batch.fields = [(*own, describe((height, width))) for own in batch.fields]
            waiting.append(pool.submit(writer.add, *part, batch, token_ids))
            if len(waiting) > AHEAD:
                waiting.popleft().result()
            yield part, batch
        for written in waiting:
            written.result()


def _refuse_many(
    skipped_count: int, limit: float, plan: Plan, skipped: Sequence[Mapping[str, str]]
) -> None:
    if skipped_count > limit:
        last = skipped[-1]
        noun = plan.images.media.noun
        raise FailedError(
            f"{skipped_count} of {len(plan.images)} {noun}s cannot be used, more than "
            f"max_bad_fraction allows; the last one, {last['key']!r} in {last['shard']}: "
            f"{last['reason']}; what is written is kept: give a larger max_bad_fraction to "
            f"continue, or repair the {noun}s and give another out"
        )


def _conclude(plan: Plan, folder: ShardFolder, limit: float) -> Report | None:
    """Write index.json if all shards are complete."""
    complete = folder.read_complete()
    if complete is not None:
        return cast(Report, complete)
    state, shard_folder = folder.state, plan.shard_folder(folder.out)
    shards: list[WholeShard] = []
    for shard in plan.shards(ALL):
        found = read_whole(state, shard_name(shard), shard_folder)
        if found is None:
            return None
        shards.append(found)
    skipped = [fault for found in shards for fault in found["skipped"]]
    files = [found["shard"] for found in shards]
    samples = sum(entry["samples"] for entry in files)
    _refuse_many(len(plan.images) - samples, limit, plan, skipped)
    if plan.settings.layout == "flat":
        files = flatten(files, plan.form, folder=shard_folder, state=state, out=folder.out)
    report = {
        **plan.identity,
        "samples": samples,
        "bytes": sum(entry["bytes"] for entry in files),
        "files": files,
        "skipped": [*(fault.listed() for fault in plan.images.faults), *skipped],
    }
    if plan.kind == "latents":
        report["statistics"] = statistics_of([note for found in shards for note in found["notes"]])
    folder.complete(report)
    return read_report(folder.out, kind=plan.kind)
