"""Which image is in which batch, whoever asks for it."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.loading import batches as batches_module
from vqtrain.data.loading.batches import Batch, TrainingBatches, ValidationBatches, stack
from vqtrain.data.loading.buckets import Buckets
from vqtrain.data.loading.order import EndlessOrder
from vqtrain.data.settings.image import ImageData
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import DataError

PREPARATION = ImageTransform(
    image_size=4, channels=3, crop="native", flip=True, range=None, background="white"
)


def training(
    index: SampleIndex, *, transform: dict[str, object] | None = None, **changes: object
) -> TrainingBatches:
    values = {"train": "-", "val": "-", "batch_size": 2, "num_workers": 0, "sampling": "permuted"}
    values |= {"max_bad_fraction": 0.01, **asdict(PREPARATION), **(transform or {})}
    values |= {key: changes.pop(key) for key in values.keys() & changes.keys()}
    place = {"seed": 3, "rank": 0, "world_size": 1, "ranks_per_node": 1, "start": 0}
    return TrainingBatches(index, settings=ImageData(**values), **(place | changes))


def validation(index: SampleIndex, **changes: object) -> ValidationBatches:
    settings = {"batch_size": 2, "rank": 0, "world_size": 1}
    return ValidationBatches(index, transform=PREPARATION, **(settings | changes))


def expected_ids(n: int, start: int, count: int) -> list[int]:
    """Look up the ids of the order for as many PNGs of the tests."""
    order = EndlessOrder(
        sizes=np.full(n, 260), weights=np.ones(n, np.float32), seed=3, sampling="permuted"
    )
    return order.samples(start, count)[2].tolist()


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.keys == other.keys
    assert torch.equal(one.samples, other.samples)
    assert torch.equal(one.mask, other.mask)


def test_batches_are_uint8_and_wholly_counted(numbered):
    batch = training(numbered(5))[0]
    assert (batch.samples.shape, batch.samples.dtype) == ((2, 3, 4, 4), torch.uint8)
    assert batch.mask.tolist() == [True, True]
    gray = training(numbered(5), transform={"channels": 1, "image_size": 8})[0]
    assert gray.samples.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_sample_comes_once_an_epoch_at_its_position(numbered, world_size):
    index = numbered(10)
    ranks = [training(index, rank=rank, world_size=world_size) for rank in range(world_size)]
    # 30 batches of 2 are 6 epochs of 10.
    keys = [key for m in range(30 // world_size) for rank in ranks for key in rank[m].keys]
    epochs = [keys[start : start + 10] for start in range(0, 60, 10)]
    assert all(sorted(epoch) == [f"{i:03d}" for i in range(10)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert [int(key) for key in keys] == expected_ids(10, 0, 60)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_sample_comes_once_an_epoch_in_a_batch_of_its_size(numbered, world_size):
    index = numbered(10)
    buckets = Buckets(sizes=[(6, 4), (4, 6)], labels=np.array([0] * 6 + [1] * 4, np.uint8))
    more = {"buckets": buckets, "world_size": world_size}
    ranks = [training(index, rank=rank, **more) for rank in range(world_size)]
    batches = [rank[m] for m in range(30 // world_size) for rank in ranks]
    for batch in batches:
        (bucket,) = {int(key) >= 6 for key in batch.keys}
        assert batch.samples.shape == (2, 3, *buckets.sizes[bucket])
    keys = [key for batch in batches for key in batch.keys]
    for first in range(0, 60, 10):
        assert sorted(keys[first : first + 10]) == [f"{i:03d}" for i in range(10)]
    # The order is the same on any number of ranks, and so are the crops; a restart continues it.
    alone = training(index, buckets=buckets)
    restarted = [training(index, rank=rank, start=18, **more) for rank in range(world_size)]
    for m, batch in enumerate(batches):
        assert_equal(batch, alone[m])
        if m >= 9 and m < 9 + world_size:
            assert_equal(batch, restarted[m - 9][0])


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
        joined = torch.cat([half[m].samples for half in halves])
        assert torch.equal(joined, whole[m].samples)


def test_the_seed_decides_everything(numbered):
    index = numbered(10)
    first = training(index)[4]
    torch.manual_seed(0)
    assert_equal(training(index)[4], first)
    assert training(index, seed=4, batch_size=10)[0].keys != training(index, batch_size=10)[0].keys


def test_crops_differ_from_epoch_to_epoch(numbered):
    batches = training(numbered(1), batch_size=20, transform={"flip": False})
    assert len({image.numpy().tobytes() for image in batches[0].samples}) > 10


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
        assert batch.samples.shape == (3, 3, 4, 4)
        for image, key, is_counted in zip(batch.samples, batch.keys, batch.mask, strict=True):
            assert torch.equal(image, center(index, int(key)))
            if is_counted:
                counted.append(key)
    assert sorted(counted) == [f"{i:03d}" for i in range(n)]


def center(index: SampleIndex, image_id: int) -> Tensor:
    return PREPARATION.decode(index.read(image_id), None)


def test_a_padded_image_is_decoded_once(numbered, monkeypatch):
    index = numbered(2)
    read, real_read = [], SampleIndex.read

    def count(self: SampleIndex, image_id: int) -> bytes:
        read.append(image_id)
        return real_read(self, image_id)

    monkeypatch.setattr(SampleIndex, "read", count)
    batch = validation(index, batch_size=16)[0]
    assert read == [0, 1]
    assert batch.mask.tolist() == [True] * 2 + [False] * 14


def test_a_batch_moves_with_all_its_parts(numbered):
    batch = training(numbered(5))[0]
    moved = batch.to("meta", non_blocking=True)
    assert moved.samples.device.type == moved.mask.device.type == "meta"
    assert moved.keys == batch.keys
    assert_equal(batch.to(torch.device("cpu")), batch)


@pytest.mark.parametrize("size", [(7,), (2, 3), (2, 3, 4)], ids=["sound", "image", "clip"])
def test_a_batch_holds_samples_of_any_number_of_axes(size):
    samples = [torch.rand(3, *size) for _ in range(2)]
    stacked = stack(samples)
    assert torch.equal(stacked, torch.stack(samples))
    assert stacked.movedim(1, -1).is_contiguous()  # channels last in memory
    batch = Batch(samples=stacked, mask=torch.ones(2, dtype=torch.bool), keys=["a", "b"])
    assert batch.to("meta").samples.shape == (2, 3, *size)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_batch_is_pinned_with_all_its_parts(numbered):
    batch = training(numbered(5))[0]
    pinned = batch.pin_memory()
    assert pinned.samples.is_pinned()
    assert pinned.mask.is_pinned()
    assert_equal(pinned.to("cuda", non_blocking=True).to("cpu"), batch)


@pytest.fixture
def with_bad(numbered, tmp_path: Path) -> SampleIndex:
    """Index 20 pictures, of which the fourth and the last are none."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not a picture")
    bad = [open_samples(str(folder / name), role="training") for name in ("empty.png", "text.jpg")]
    good = numbered(18)
    return SampleIndex.concatenate(
        [good.select(np.arange(3)), bad[0], good.select(np.arange(3, 18)), bad[1]]
    )


@pytest.mark.parametrize("world_size", [1, 2])
def test_another_image_stands_in_for_a_bad_one(with_bad, world_size):
    ranks = [training(with_bad, rank=rank, world_size=world_size) for rank in range(world_size)]
    batches = [rank[m] for m in range(10 // world_size) for rank in ranks]
    keys = [key for batch in batches for key in batch.keys]
    # One epoch of 20: all 18 good ones, and two of them once more.
    assert sorted(set(keys)) == [f"{i:03d}" for i in range(18)]
    assert all(batch.mask.all() for batch in batches)
    faults = {fault for batch in batches for fault in batch.faults}
    assert {(fault.key, Path(fault.shard).name) for fault in faults} == {
        ("empty", "empty.png"),
        ("text", "text.jpg"),
    }
    assert "the file is empty" in {fault.reason for fault in faults}


def test_what_stands_in_is_a_function_of_the_position(with_bad):
    whole, halves = training(with_bad, batch_size=4), training(with_bad, start=2)
    joined = torch.cat([training(with_bad)[m].samples for m in range(20)])
    assert torch.equal(torch.cat([whole[m].samples for m in range(10)]), joined)
    assert torch.equal(torch.cat([halves[m].samples for m in range(19)]), joined[2:])


def test_a_bad_image_is_masked_in_validation(with_bad):
    batches = [validation(with_bad, batch_size=7)[m] for m in range(3)]
    keys = [
        key
        for batch in batches
        for key, is_counted in zip(batch.keys, batch.mask.tolist(), strict=True)
        if is_counted
    ]
    assert keys == [f"{i:03d}" for i in range(18)]
    assert [fault.key for batch in batches for fault in batch.faults] == ["empty", "text"]
    assert all(batch.samples.shape == (7, 3, 4, 4) for batch in batches)


def test_where_nothing_can_be_read_it_ends(with_bad):
    bad = with_bad.select(np.array([3, 19]))
    with pytest.raises(DataError, match=r"^100 images in a row cannot be read, the last one is '"):
        training(bad)[0]


def test_a_file_that_is_gone_is_passed_over(numbered):
    index = numbered(4)
    Path(index.paths[0]).unlink()
    batch = validation(index, batch_size=4)[0]
    assert not batch.mask.any()
    assert {fault.reason for fault in batch.faults} == {
        "cannot read the file: No such file or directory"
    }


def test_blocks_are_asked_for_before_their_images_are_read(numbered, monkeypatch):
    asked = set[int]()
    monkeypatch.setattr(
        SampleIndex, "read_ahead", lambda _, image_ids: asked.update(image_ids.tolist())
    )
    shared = [
        training(numbered(12), rank=rank, world_size=2, ranks_per_node=2) for rank in range(2)
    ]
    # The 12 are one block, and so are those of the next epoch. The positions of step s, and the
    # 12 after them, end at 4 * (s + 1) + 12: at 16 the second epoch has begun, the third at 28.
    for number, expected in enumerate([set(range(12)), set(), set(), set(range(12))]):
        asked.clear()
        for rank in shared:
            rank[number]
        assert asked == expected


def test_reading_ahead_changes_no_batch(numbered, monkeypatch):
    index = numbered(12)
    expected = [training(index)[m] for m in range(8)]
    monkeypatch.setattr(batches_module.TrainingBatches, "_read_ahead", lambda *_: None)
    for number, batch in enumerate(expected):
        assert_equal(training(index)[number], batch)


def test_a_resampled_epoch_repeats_some(numbered):
    keys = [k for m in range(30) for k in training(numbered(12), sampling="resampled")[m].keys]
    assert all(len(set(keys[start : start + 12])) < 12 for start in range(0, 60, 12))
    assert len(set(keys)) == 12
