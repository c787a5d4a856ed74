"""The shards of one process: complete ones, the progress of the others, and the next batches."""

from collections.abc import Sequence
from typing import final

from jaxtyping import Shaped
from torch import Tensor
from webdataset.writer import numpy_dumps

from vqtrain.data.loading.batches import Batch
from vqtrain.data.shards.folder import ShardFolder
from vqtrain.data.shards.writer import ShardWriter, has_begun, read_whole, tar_members
from vqtrain.data.tokens.batches import IDS_FIELD
from vqtrain.data.tokens.plan import Plan, shard_name
from vqtrain.data.tokens.statistics import sums_of


@final
class ShareWriter:
    """Writes the shards of a share, each from its current position.

    Args:
        plan: The plan.
        shards: The shards of this process.
        folder: The output folder, in which ``begin`` was called.

    Attributes:
        skipped: Images of these shards that were skipped before.
        rest: Shard and positions of each batch that is left to write, in order.
        total: Images of all these shards.
    """

    def __init__(self, plan: Plan, shards: range, *, folder: ShardFolder) -> None:
        self._plan, self._state = plan, folder.state
        self._folder = plan.shard_folder(folder.out)
        self._folder.mkdir(exist_ok=True)
        self._writers: dict[int, ShardWriter] = {}
        self._has_failed = False
        self.rest: list[tuple[int, range]] = []
        self.skipped = self.total = 0
        for shard in shards:
            batches = plan.batches(shard)
            done, samples = self._begin(shard)
            self.skipped += sum(map(len, batches[:done])) - samples
            self.rest += [(shard, image_ids) for image_ids in batches[done:]]
            self.total += sum(map(len, batches))

    def _begin(self, shard: int) -> tuple[int, int]:
        """Return the number of batches and samples of a shard that are written."""
        name = shard_name(shard)
        whole = read_whole(self._state, name, self._folder)
        if whole is not None:
            return whole["writes"], whole["shard"]["samples"]
        if not has_begun(self._state, name):
            return 0, 0
        writer = self._writers[shard] = ShardWriter(state=self._state, name=name)
        self._finish_if_whole(shard)
        return writer.writes, writer.samples

    def add(
        self,
        shard: int,
        image_ids: Sequence[int],
        batch: Batch,
        token_ids: Shaped[Tensor, " b *tokens"],
    ) -> None:
        """Write a batch without its masked images.

        After a failed write, no later batch is written.
        """
        if self._has_failed:
            return
        self._has_failed = True
        if shard not in self._writers:
            self._writers[shard] = ShardWriter(state=self._state, name=shard_name(shard))
        ids = token_ids.cpu().numpy().astype(self._plan.form["dtype"])
        samples = [
            (self._plan.keys[image_id], ((IDS_FIELD, numpy_dumps(ids[position])), *fields))
            for position, (image_id, fields) in enumerate(zip(image_ids, batch.fields, strict=True))
            if batch.mask[position]
        ]
        notes = [] if self._plan.kind == "tokens" else [sums_of(ids[batch.mask.numpy()])]
        self._writers[shard].add(
            tar_members(samples), samples=len(samples), skipped=batch.faults, notes=notes
        )
        self._finish_if_whole(shard)
        self._has_failed = False

    def close(self) -> None:
        """Close incomplete shards, to be continued later."""
        for writer in self._writers.values():
            writer.close()

    def _finish_if_whole(self, shard: int) -> None:
        if self._writers[shard].writes == len(self._plan.batches(shard)):
            self._writers.pop(shard).finish(self._folder)
