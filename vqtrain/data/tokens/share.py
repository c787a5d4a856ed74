"""The shards of one process: which are whole, how far the others are, and what is next."""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Int64, Shaped
from torch import Tensor

from vqtrain.data.batches import Batch
from vqtrain.data.tokens.batches import IDS_FIELD
from vqtrain.data.tokens.index import UNFINISHED
from vqtrain.data.tokens.plan import Plan, shard_name
from vqtrain.data.tokens.shards import ShardWriter, journal, read_whole, to_npy


@final
class ShareWriter:
    """Writes the shards of a share, each from where it stands.

    Args:
        plan: What goes where.
        shards: Those of this process.
        out: Folder of the tokens, which is begun.

    Attributes:
        left_out: Pictures that were left out of these shards before.
        rest: Shard and positions of each batch that is still to be written, in their order.
        total: Pictures of all these shards.
    """

    def __init__(self, plan: Plan, shards: range, *, out: Path) -> None:
        self._plan = plan
        self._state, self._folder = out / UNFINISHED, plan.folder(out)
        self._folder.mkdir(exist_ok=True)
        self._writers: dict[int, ShardWriter] = {}
        self._has_failed = False
        self.rest: list[tuple[int, range]] = []
        self.left_out = self.total = 0
        for shard in shards:
            batches = plan.batches(shard)
            done, samples = self._begin(shard)
            self.left_out += sum(map(len, batches[:done])) - samples
            self.rest += [(shard, image_ids) for image_ids in batches[done:]]
            self.total += sum(map(len, batches))

    def _begin(self, shard: int) -> tuple[int, int]:
        """Return how many batches and samples of a shard are written."""
        name = shard_name(shard)
        whole = read_whole(self._state, name, self._folder)
        if whole is not None:
            return len(self._plan.batches(shard)), whole["shard"]["samples"]
        if not journal(self._state, name).is_file():
            return 0, 0
        writer = self._writers[shard] = ShardWriter(state=self._state, name=name)
        self._finish_if_whole(shard)
        return writer.batches, writer.samples

    def add(
        self,
        shard: int,
        image_ids: Sequence[int],
        batch: Batch,
        token_ids: Int64[Tensor, " b *tokens"],
    ) -> None:
        """Write a batch, without the images that are masked.

        Once a batch could not be written, those that wait behind it are not, either.
        """
        if self._has_failed:
            return
        self._has_failed = True
        if shard not in self._writers:
            self._writers[shard] = ShardWriter(state=self._state, name=shard_name(shard))
        rows = self._in_file_type(token_ids)
        self._writers[shard].add(
            [
                (self._plan.keys[image_id], ((IDS_FIELD, to_npy(rows[place])), *members))
                for place, (image_id, members) in enumerate(
                    zip(image_ids, batch.fields, strict=True)
                )
                if batch.mask[place]
            ],
            batch.faults,
        )
        self._finish_if_whole(shard)
        self._has_failed = False

    def close(self) -> None:
        """Leave what is not whole as it is."""
        for writer in self._writers.values():
            writer.close()

    def _finish_if_whole(self, shard: int) -> None:
        if self._writers[shard].batches == len(self._plan.batches(shard)):
            self._writers.pop(shard).finish(self._folder)

    def _in_file_type(
        self, token_ids: Int64[Tensor, " b *tokens"]
    ) -> Shaped[np.ndarray, " b *tokens"]:
        return token_ids.cpu().numpy().astype(self._plan.identity["tokens"]["dtype"])
