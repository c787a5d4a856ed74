"""The order of token ids in a run."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch

from vqtrain.training.token_arrays import TokenArrays
from vqtrain.training.token_data import TokenBatch, TokenData


def data_of(count: int, *, start: int = 0, batch_size: int = 2) -> TokenData:
    numbers = np.arange(count)[:, None]
    arrays = TokenArrays(token_ids=numbers.astype(np.uint16), conditions=numbers, digest="")
    return TokenData(training=arrays, validation=arrays, batch_size=batch_size, seed=3, start=start)


def ids_in(batches: Iterator[TokenBatch], count: int) -> list[int]:
    return [number for batch in islice(batches, count) for number in batch.token_ids[:, 0].tolist()]


def test_each_epoch_has_every_sample_once_in_an_order_of_its_own() -> None:
    ids = ids_in(data_of(7).training_batches(), 7)
    first, second = ids[:7], ids[7:]
    assert sorted(first) == sorted(second) == list(range(7))
    assert first != second
    # From any position it goes on as it would have.
    assert ids_in(data_of(7, start=5).training_batches(), 3) == ids[5:11]
    assert ids_in(data_of(7, batch_size=4).training_batches(), 2) == ids[:8]


def test_ranks_share_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.tensor(ids_in(data_of(7, batch_size=4).training_batches(), 3)).view(3, 2, 2)
    monkeypatch.setattr("vqtrain.distributed.world_size", lambda: 2)
    counted = []
    for rank in (0, 1):
        monkeypatch.setattr("vqtrain.distributed.rank", lambda rank=rank: rank)
        assert ids_in(data_of(7).training_batches(), 3) == whole[:, rank].flatten().tolist()
        batches = list(data_of(7).validation_batches())
        assert [len(batch.mask) for batch in batches] == [2, 2]
        counted += [n for batch in batches for n in batch.token_ids[batch.mask, 0].tolist()]
    assert sorted(counted) == list(range(7))
    assert data_of(7, start=4).samples_at(3) == 4 + 3 * 2 * 2
