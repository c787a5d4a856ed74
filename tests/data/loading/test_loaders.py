"""The loaders with and without worker processes: the same batches, errors and good manners."""

import gc
import multiprocessing
import os
import signal
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from vqtrain.data.loading.batches import Batch, TrainingBatches, ValidationBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.loading.order import EndlessOrder
from vqtrain.data.settings.image import ImageData
from vqtrain.data.sources.index import SampleIndex
from vqtrain.data.sources.scan import index_files
from vqtrain.errors import DataError

pytestmark = [
    # torch warns of more workers than cores, of which the machine may have one.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    # Python 3.12 and later warn of a fork beside torch's threads, which workers do not touch.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def settings(**changes: object) -> ImageData:
    values = {"train": "demo", "val": "auto", "image_size": 4, "channels": 3, "crop": "native"}
    values |= {"flip": True, "batch_size": 2, "num_workers": 0, "sampling": "permuted"}
    values |= {"range": None, "background": "white", "max_bad_fraction": 0.01}
    return ImageData(**(values | changes))


def training(index: SampleIndex, *, num_workers: int, **changes: int) -> Loader:
    place = {"seed": 3, "rank": 0, "world_size": 1, "ranks_per_node": 1, "start": 0} | changes
    return Loader(TrainingBatches(index, settings=settings(), **place), num_workers=num_workers)


def validation(index: SampleIndex, *, num_workers: int, **place: int) -> Loader:
    transform = settings(crop="resize").transform
    batches = ValidationBatches(index, transform=transform, batch_size=2, **place)
    return Loader(batches, numbers=range(len(batches)), num_workers=num_workers)


def assert_equal(batches: list[Batch], expected: list[Batch]) -> None:
    assert [batch.keys for batch in batches] == [batch.keys for batch in expected]
    for batch, other in zip(batches, expected, strict=True):
        assert torch.equal(batch.samples, other.samples)
        assert torch.equal(batch.mask, other.mask)


class Probe(torch.utils.data.Dataset[Batch]):
    """Report on the process that loads, as the keys of a batch."""

    def __getitem__(self, number: int) -> Batch:
        numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        ignores = all(signal.getsignal(number) is signal.SIG_IGN for number in numbers)
        keys = [str(os.getpid()), str(torch.get_num_threads()), str(ignores)]
        return Batch(
            samples=torch.zeros(1, 1, 1, 1, dtype=torch.uint8),
            mask=torch.ones(1, dtype=torch.bool),
            keys=keys,
        )


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_sample_comes_once_an_epoch_at_its_position(numbered, num_workers, world_size):
    index = numbered(12)
    ranks = [
        training(index, num_workers=num_workers, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    # 18 batches of 2 are 3 epochs of 12.
    by_rank = [[batch.keys for batch in islice(rank, 18 // world_size)] for rank in ranks]
    keys = [key for row in zip(*by_rank, strict=True) for batch in row for key in batch]
    for start in (0, 12, 24):
        assert sorted(keys[start : start + 12]) == [f"{i:03d}" for i in range(12)]
    order = EndlessOrder(sizes=index.sizes, weights=index.weights, seed=3, sampling="permuted")
    assert [int(key) for key in keys] == order.samples(0, 36)[2].tolist()


def test_workers_change_no_batch(numbered):
    index = numbered(7)
    expected = list(islice(training(index, num_workers=0), 11))
    assert_equal(list(islice(training(index, num_workers=2), 11)), expected)
    assert_equal(list(islice(training(index, num_workers=1, start=12), 5)), expected[6:])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_has_no_end_and_begins_anew(numbered, num_workers):
    loader = training(numbered(3), num_workers=num_workers)
    with pytest.raises(TypeError):
        len(loader)
    first = list(islice(loader, 4))
    assert_equal(list(islice(loader, 4)), first)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_ends_and_can_be_repeated(numbered, num_workers):
    place = {"rank": 1, "world_size": 2}
    loader = validation(numbered(9), num_workers=num_workers, **place)
    # 9 images in batches of 2 on 2 ranks: 3 batches; rank 1 has 2 3, 6 7 and nothing of its own.
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [batch.keys for batch in batches] == [["002", "003"], ["006", "007"], ["008", "008"]]
    assert [batch.mask.tolist() for batch in batches] == [[True] * 2, [True] * 2, [False] * 2]
    next(iter(loader))  # a validation that is cut short
    assert_equal(list(loader), batches)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_was_passed_over_arrives_with_its_batch(numbered, tmp_path, num_workers):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = index_files([tmp_path / "broken.png"], root=tmp_path)
    index = SampleIndex.concatenate([numbered(4), broken])
    batches = list(validation(index, num_workers=num_workers))
    assert [[fault.key for fault in batch.faults] for batch in batches] == [[], [], ["broken"]]
    assert [batch.mask.tolist() for batch in batches] == [[True] * 2, [True] * 2, [False] * 2]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_arrives_in_one_line(numbered, num_workers):
    index = numbered(4)
    Path(index.paths[0]).unlink()
    with pytest.raises(DataError, match=r"^100 images in a row cannot be read, the last one is '0"):
        next(iter(training(index, num_workers=num_workers)))


def test_other_errors_keep_their_traceback():
    class Faulty(torch.utils.data.Dataset[Batch]):
        def __getitem__(self, number: int) -> Batch:
            raise ZeroDivisionError("a mistake of ours")

    with pytest.raises(ZeroDivisionError, match="Original Traceback"):
        next(iter(Loader(Faulty(), numbers=[0], num_workers=1)))


def test_workers_use_one_thread_and_leave_interrupts_alone():
    loader = Loader(Probe(), numbers=range(4), num_workers=2)
    reports = [batch.keys for batch in loader]
    assert len({pid for pid, _, _ in reports}) == 2
    assert all(int(pid) != os.getpid() for pid, _, _ in reports)
    assert [report[1:] for report in reports] == [["1", "True"]] * 4
    # The same processes serve a second pass.
    assert [batch.keys for batch in loader] == reports


def test_without_workers_this_process_is_left_as_it_is():
    handler = signal.getsignal(signal.SIGINT)
    (batch,) = Loader(Probe(), numbers=[0], num_workers=0)
    assert batch.keys[0] == str(os.getpid())
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_moves_no_random_state(numbered, num_workers):
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002 - the global one
    next(iter(training(numbered(3), num_workers=num_workers)))
    after = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002 - the global one
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_pinned_where_there_is_a_gpu(numbered, num_workers):
    batch = next(iter(training(numbered(3), num_workers=num_workers)))
    assert batch.samples.is_pinned()
    assert batch.mask.is_pinned()


@pytest.mark.parametrize("is_error", [False, True])
def test_a_loader_in_a_cycle_ends_its_workers_at_once(is_error):
    class Faulty(torch.utils.data.Dataset[Batch]):
        def __getitem__(self, number: int) -> Batch:
            raise DataError(f"nothing at {number}")

    class Node:
        pass

    for _ in range(5):  # which of its parts is collected first is a matter of chance
        before = set(multiprocessing.active_children())
        node = Node()
        node.loader = Loader(Faulty() if is_error else Probe(), numbers=range(9), num_workers=1)
        node.batches = iter(node.loader)
        node.itself = node
        with suppress(DataError):
            next(node.batches)
        (worker,) = set(multiprocessing.active_children()) - before
        del node
        began = time.monotonic()
        gc.collect()
        assert time.monotonic() - began < 4  # torch waits for 5 s
        assert not worker.is_alive()


def test_no_worker_outlives_its_loader():
    loader = Loader(Probe(), numbers=range(2), num_workers=2)
    pids = {batch.keys[0] for batch in loader}
    del loader
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_process_that_still_has_a_loader_ends():
    held: list[object] = []

    def hold() -> None:
        loader = Loader(Probe(), num_workers=1)
        batches = iter(loader)
        next(batches)
        held.extend([loader, batches])

    process = multiprocessing.get_context("fork").Process(target=hold)
    process.start()
    process.join(timeout=20)
    is_over = not process.is_alive()
    process.kill()
    assert is_over
