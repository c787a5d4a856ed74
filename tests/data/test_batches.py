"""Which image is in which batch, whoever asks for it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vqtrain.data.batches import Batch, TrainingBatches, ValidationBatches
from vqtrain.data.images import load_pixels
from vqtrain.data.index import ImageIndex
from vqtrain.data.order import EndlessOrder


def training(index: ImageIndex, **changes: object) -> TrainingBatches:
    settings = {"seed": 3, "batch_size": 2, "rank": 0, "world_size": 1, "image_size": 4}
    settings |= {"channels": 3, "crop": "native", "flip": True, "start": 0}
    return TrainingBatches(index, **(settings | changes))


def validation(index: ImageIndex, **changes: object) -> ValidationBatches:
    settings = {"batch_size": 2, "rank": 0, "world_size": 1, "image_size": 4, "channels": 3}
    return ValidationBatches(index, crop="native", **(settings | changes))


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.keys == other.keys
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.mask, other.mask)


def test_batches_are_uint8_and_wholly_counted(numbered):
    batch = training(numbered(5))[0]
    assert (batch.images.shape, batch.images.dtype) == ((2, 3, 4, 4), torch.uint8)
    assert batch.mask.tolist() == [True, True]
    assert training(numbered(5), channels=1, image_size=8)[0].images.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_sample_comes_once_an_epoch_at_its_position(numbered, world_size):
    index = numbered(10)
    ranks = [training(index, rank=rank, world_size=world_size) for rank in range(world_size)]
    # 30 batches of 2 are 6 epochs of 10.
    keys = [key for m in range(30 // world_size) for rank in ranks for key in rank[m].keys]
    epochs = [keys[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(epoch) == [f"{i:03d}" for i in range(10)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    _, expected = EndlessOrder(n=10, seed=3).samples(0, 60)
    assert [int(key) for key in keys] == expected.tolist()


def test_a_batch_larger_than_the_data_spans_epochs(numbered):
    keys = training(numbered(3), batch_size=9)[0].keys
    assert all(sorted(keys[i : i + 3]) == ["000", "001", "002"] for i in (0, 3, 6))


@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (3, 2)])
def test_a_restart_goes_on_with_the_same_batches(numbered, world_size, rank):
    index = numbered(7)
    whole = training(index, rank=rank, world_size=world_size)
    restarted = training(index, rank=rank, world_size=world_size, start=5 * world_size * 2)
    for m in range(8):
        assert_equal(restarted[m], whole[5 + m])


def test_the_layout_changes_no_sample(numbered):
    index = numbered(7)
    whole = training(index, batch_size=4)
    halves = [training(index, rank=rank, world_size=2) for rank in range(2)]
    for m in range(6):
        joined = torch.cat([half[m].images for half in halves])
        assert torch.equal(joined, whole[m].images)


def test_the_seed_decides_everything(numbered):
    index = numbered(10)
    first = training(index)[4]
    torch.manual_seed(0)
    assert_equal(training(index)[4], first)
    assert training(index, seed=4, batch_size=10)[0].keys != training(index, batch_size=10)[0].keys


def test_crops_differ_from_epoch_to_epoch(numbered):
    batches = training(numbered(1), batch_size=20, flip=False)
    assert len({image.numpy().tobytes() for image in batches[0].images}) > 10


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("n", [1, 2, 7, 33])
def test_validation_counts_every_image_once(numbered, n, world_size):
    index = numbered(n)
    ranks = [
        validation(index, batch_size=3, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    batches = [[rank[m] for m in range(len(rank))] for rank in ranks]
    # Full batches, as many on each rank: ceil(n / (3 * world size)).
    assert {len(rank) for rank in batches} == {-(-n // (3 * world_size))}
    counted = []
    for batch in (batch for rank in batches for batch in rank):
        assert batch.images.shape == (3, 3, 4, 4)
        for image, key, is_counted in zip(batch.images, batch.keys, batch.mask, strict=True):
            assert torch.equal(image, center(index, int(key)))
            if is_counted:
                counted.append(key)
    assert sorted(counted) == [f"{i:03d}" for i in range(n)]


def center(index: ImageIndex, image_id: int) -> Tensor:
    options = {"image_size": 4, "channels": 3, "crop": "native", "flip": False, "generator": None}
    return torch.from_numpy(np.array(load_pixels(index, image_id, **options)))


def test_a_padded_image_is_decoded_once(numbered, monkeypatch):
    index = numbered(2)
    read, real_read = [], ImageIndex.read

    def count(self: ImageIndex, image_id: int) -> bytes:
        read.append(image_id)
        return real_read(self, image_id)

    monkeypatch.setattr(ImageIndex, "read", count)
    batch = validation(index, batch_size=16)[0]
    assert read == [0, 1]
    assert batch.mask.tolist() == [True] * 2 + [False] * 14


def test_a_batch_moves_with_all_its_parts(numbered):
    batch = training(numbered(5))[0]
    moved = batch.to("meta", non_blocking=True)
    assert moved.images.device.type == moved.mask.device.type == "meta"
    assert moved.keys == batch.keys
    assert_equal(batch.to(torch.device("cpu")), batch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_batch_is_pinned_with_all_its_parts(numbered):
    batch = training(numbered(5))[0]
    pinned = batch.pin_memory()
    assert pinned.images.is_pinned()
    assert pinned.mask.is_pinned()
    assert_equal(pinned.to("cuda", non_blocking=True).to("cpu"), batch)
