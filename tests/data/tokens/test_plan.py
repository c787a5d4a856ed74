"""Which picture goes where, by arithmetic."""

import dataclasses

import numpy as np
import pytest

from vqtrain.data.shards.folder import read_share
from vqtrain.errors import ConfigError


def test_every_picture_is_in_one_batch_of_one_share(index_of, plan_of):
    plan = plan_of(index_of(), batch_size=3)
    found = []
    for number in range(2):
        for shard in plan.shards(read_share(f"{number}/2")):
            assert shard % 2 == number
            found += [list(image_ids) for image_ids in plan.batches(shard)]
    assert sorted(found) == [[0, 1, 2], [3], [4, 5, 6], [7], [8, 9]]


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        (2, "uint8"),
        (256, "uint8"),
        (257, "uint16"),
        (2**16, "uint16"),
        (2**16 + 1, "uint32"),
        (2**32, "uint32"),
        (2**36, "uint64"),
    ],
)
def test_ids_have_the_smallest_type_that_holds_them(index_of, plan_of, size, dtype):
    assert plan_of(index_of(), size=size).identity["tokens"]["dtype"] == dtype


def test_weights_are_refused(index_of, plan_of):
    index = dataclasses.replace(index_of(), weights=np.full(10, 2, np.float32))
    with pytest.raises(ConfigError, match="images have weights, which tokens do not store"):
        plan_of(index)


@pytest.mark.parametrize("text", ["2/2", "0/0", "1", "a/b", "-1/2", "1/2/3", ""])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="share must be r/n"):
        read_share(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
        ({"layout": "parquet"}, "layout must be one of webdataset, flat, got 'parquet'"),
    ],
)
def test_impossible_settings_are_refused(index_of, plan_of, settings, message):
    with pytest.raises(ConfigError, match=message):
        plan_of(index_of(), **settings)
