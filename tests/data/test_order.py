"""The block shuffle: complete, local, and a function of its arguments alone."""

from itertools import permutations

import numpy as np
import pytest

from vqtrain.data.order import EndlessOrder, epoch_order, sample_generator


@pytest.mark.parametrize("n", [1, 2, 5, 16, 100, 1000])
@pytest.mark.parametrize(("block_size", "window"), [(1, 1), (4, 1), (4, 3), (7, 2), (32, 512)])
def test_every_record_comes_once(n, block_size, window):
    order = epoch_order(n, seed=0, epoch=0, block_size=block_size, window=window)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(n))


def test_a_window_mixes_whole_blocks_and_nothing_else():
    # 12 records in blocks {0 1} {2 3} .. {10 11}; a window of 2 blocks is 4 records.
    order = epoch_order(12, seed=3, epoch=0, block_size=2, window=2)
    for window in order.reshape(3, 4):
        blocks = sorted(record // 2 for record in window.tolist())
        assert blocks[0] == blocks[1] != blocks[2] == blocks[3]


def test_blocks_are_permuted():
    firsts = {
        int(epoch_order(30, seed=0, epoch=epoch, block_size=10, window=1)[0]) // 10
        for epoch in range(30)
    }
    assert firsts == {0, 1, 2}


def test_an_incomplete_block_stays_together():
    # Blocks {0 1 2} {3 4}: alone in a window each, so 3 and 4 are neighbors.
    for epoch in range(10):
        order = epoch_order(5, seed=0, epoch=epoch, block_size=3, window=1).tolist()
        assert abs(order.index(3) - order.index(4)) == 1


def test_all_orders_of_a_small_set_are_equally_likely():
    orders = [
        tuple(epoch_order(3, seed=0, epoch=epoch, block_size=32, window=512).tolist())
        for epoch in range(1200)
    ]
    counts = [orders.count(permutation) for permutation in permutations(range(3))]
    # Each is binomial with mean 200 and standard deviation sqrt(1200 * 1/6 * 5/6) = 12.9.
    assert all(abs(count - 200) < 5 * 12.9 for count in counts)


def test_the_order_follows_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        return epoch_order(100, seed=seed, epoch=epoch, block_size=4, window=8).tolist()

    first = order(0, 0)
    np.random.default_rng().random(10)
    assert order(0, 0) == first
    assert order(0, 1) != first
    assert order(1, 0) != first
    assert order(1, 0) != order(0, 1)


def test_numbers_of_a_sample_follow_seed_epoch_and_id():
    def number(seed: int, epoch: int, image_id: int) -> float:
        return sample_generator(seed=seed, epoch=epoch, image_id=image_id).random()

    numbers = {number(*place) for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(numbers) == 4
    assert number(0, 1, 2) == number(0, 1, 2)


def test_epochs_follow_each_other_without_a_gap():
    epochs, ids = EndlessOrder(n=7, seed=5).samples(0, 21)
    assert epochs.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    for epoch in range(3):
        expected = epoch_order(7, seed=5, epoch=epoch, block_size=32, window=512)
        assert np.array_equal(ids[7 * epoch : 7 * epoch + 7], expected)


@pytest.mark.parametrize("count", [1, 3, 7, 16])
def test_positions_do_not_depend_on_how_they_are_asked_for(count):
    _, whole = EndlessOrder(n=7, seed=5).samples(0, 48)
    order = EndlessOrder(n=7, seed=5)
    for start in reversed(range(0, 48, count)):  # backwards as well
        _, ids = order.samples(start, count)
        assert np.array_equal(ids[: 48 - start], whole[start : start + count])


def test_a_single_record_is_repeated():
    epochs, ids = EndlessOrder(n=1, seed=0).samples(3, 4)
    assert (epochs.tolist(), ids.tolist()) == ([3, 4, 5, 6], [0, 0, 0, 0])
