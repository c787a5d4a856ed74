"""The position in the data, and the time that is spent waiting for it."""

import time
from collections.abc import Callable
from itertools import islice

import pytest
import torch
from torch.utils.data import Dataset

from vqtrain.data.loading.batches import Batch, TrainingBatches, ValidationBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.sources.index import SampleIndex
from vqtrain.training.data_module import TrainingData
from vqtrain.training.trained import Timed

MakeData = Callable[..., TrainingData]


def test_the_first_batches_are_those_that_are_trained_on(make_data: MakeData) -> None:
    data = make_data(num_workers=1)
    first, trained = iter(data.first_batches()), iter(data.train_dataloader())
    for _ in range(3):
        a, b = next(first), next(trained)
        assert a.keys == b.keys
        assert torch.equal(a.samples, b.samples)


def test_a_run_goes_on_where_it_stopped(make_data: MakeData) -> None:
    batches = iter(make_data().train_dataloader())
    for _ in range(3):
        next(batches)
    # Three batches of 4 images.
    continued = next(iter(make_data(start=12).train_dataloader()))
    expected = next(batches)
    assert continued.keys == expected.keys
    assert torch.equal(continued.samples, expected.samples)


def test_samples_are_counted_over_the_whole_run(make_data: MakeData) -> None:
    data = make_data(start=12, batch_size=4)
    assert data.samples_at(0) == 12
    assert data.samples_at(5) == 12 + 5 * 4


def test_samples_are_counted_over_all_ranks(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqtrain.distributed.world_size", lambda: 3)
    assert make_data(start=12, batch_size=4).samples_at(5) == 12 + 5 * 3 * 4


def test_each_validation_image_comes_once(make_data: MakeData) -> None:
    batches = list(make_data(validation=6, batch_size=4).validation_batches())
    assert [batch.mask.tolist() for batch in batches] == [[True] * 4, [True, True, False, False]]
    keys = [
        key
        for batch in batches
        for key, is_real in zip(batch.keys, batch.mask.tolist(), strict=True)
        if is_real
    ]
    assert keys == [f"picture-{number:02d}" for number in range(6)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"flip": False},
        {"crop": "random_resized", "image_size": 6},
        {"channels": 1},
        {"sampling": "resampled"},
        {"range": [0, 255]},
    ],
)
def test_the_settings_reach_the_batches(
    make_data: MakeData, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    monkeypatch.setattr("vqtrain.distributed.world_size", lambda: 2)
    monkeypatch.setattr("vqtrain.distributed.rank", lambda: 1)
    data = make_data(start=3, batch_size=5, **changes)
    chosen, place = data.settings, {"rank": 1, "world_size": 2}
    assert isinstance(data.training, SampleIndex)
    batches = TrainingBatches(
        data.training, settings=chosen, seed=0, start=3, ranks_per_node=2, **place
    )
    held_out = ValidationBatches(data.validation, transform=chosen.transform, batch_size=5, **place)
    found = [*islice(data.train_dataloader(), 2), *data.validation_batches()]
    for batch, expected in zip(found, [batches[0], batches[1], held_out[0]], strict=True):
        assert batch.keys == expected.keys
        assert torch.equal(batch.samples, expected.samples)
        assert torch.equal(batch.mask, expected.mask)


class Slow(Dataset[Batch]):
    """A batch that takes 30 ms."""

    def __getitem__(self, number: int) -> Batch:
        """Take a while."""
        time.sleep(0.03)
        return Batch(
            samples=torch.zeros(1, 3, 1, 1, dtype=torch.uint8),
            mask=torch.ones(1, dtype=torch.bool),
            keys=[str(number)],
        )


def test_waiting_is_counted_and_work_is_not(make_data: MakeData) -> None:
    data = make_data()
    data.batches = Timed(Loader(Slow(), numbers=range(100), num_workers=0))
    batches = iter(data.batches)
    for _ in range(2):
        next(batches)
        time.sleep(0.3)
    # Two times 30 ms of loading; the 600 ms of work are not in it.
    assert 0.06 <= data.take_waited_s() < 0.3
    assert data.take_waited_s() == 0
    next(batches)
    assert 0.03 <= data.take_waited_s() < 0.3
