"""The block shuffle: complete, local, and a function of its arguments alone."""

from itertools import permutations

import numpy as np
import pytest

from vqtrain.data.loading.order import (
    EndlessOrder,
    EpochOrder,
    Repetitions,
    block_size_for,
    sample_generator,
)


def epoch_order(n: int, *, resampled: bool = False, **arguments: int) -> list[int]:
    order = EpochOrder(n, resampled=resampled, **arguments)
    return order.samples(np.arange(n)).tolist()


def endless(
    n: int,
    *,
    seed: int = 5,
    weights: list[float] | None = None,
    size: int = 100_000,
    **options: str,
) -> EndlessOrder:
    return EndlessOrder(
        sizes=np.full(n, size),
        weights=np.array(weights or [1.0] * n, dtype=np.float32),
        seed=seed,
        **{"sampling": "permuted", **options},
    )


@pytest.mark.parametrize("n", [1, 2, 5, 16, 100, 1000])
@pytest.mark.parametrize(("block_size", "window"), [(1, 1), (4, 1), (4, 3), (7, 2), (32, 512)])
def test_every_record_comes_once(n, block_size, window):
    order = epoch_order(n, seed=0, epoch=0, block_size=block_size, window=window)
    assert sorted(order) == list(range(n))


def test_a_window_mixes_whole_blocks_and_nothing_else():
    # 12 samples in blocks {0 1} {2 3} .. {10 11}; a window of 2 blocks is 4 samples.
    order = epoch_order(12, seed=3, epoch=0, block_size=2, window=2)
    for window in np.reshape(order, (3, 4)):
        blocks = sorted(record // 2 for record in window.tolist())
        assert blocks[0] == blocks[1] != blocks[2] == blocks[3]


def test_blocks_are_permuted():
    firsts = {
        epoch_order(30, seed=0, epoch=epoch, block_size=10, window=1)[0] // 10
        for epoch in range(30)
    }
    assert firsts == {0, 1, 2}


def test_an_incomplete_block_stays_together():
    # Blocks {0 1 2} {3 4}: alone in a window each, so 3 and 4 are neighbors.
    for epoch in range(10):
        order = epoch_order(5, seed=0, epoch=epoch, block_size=3, window=1)
        assert abs(order.index(3) - order.index(4)) == 1


def test_all_orders_of_a_small_set_are_equally_likely():
    orders = [
        tuple(epoch_order(3, seed=0, epoch=epoch, block_size=32, window=512))
        for epoch in range(1200)
    ]
    counts = [orders.count(permutation) for permutation in permutations(range(3))]
    # Each is binomial with mean 200 and standard deviation sqrt(1200 * 1/6 * 5/6) = 12.9.
    assert all(abs(count - 200) < 5 * 12.9 for count in counts)


def test_the_order_follows_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        return epoch_order(100, seed=seed, epoch=epoch, block_size=4, window=8)

    first = order(0, 0)
    np.random.default_rng().random(10)
    assert order(0, 0) == first
    assert order(0, 1) != first
    assert order(1, 0) != first
    assert order(1, 0) != order(0, 1)


@pytest.mark.parametrize("resampled", [False, True])
def test_places_do_not_depend_on_how_they_are_asked_for(resampled):
    arguments = {"seed": 1, "epoch": 2, "block_size": 3, "window": 2, "resampled": resampled}
    whole = EpochOrder(50, **arguments).samples(np.arange(50))
    order = EpochOrder(50, **arguments)
    places = np.random.default_rng(0).permutation(50)
    assert np.array_equal(order.samples(places), whole[places])


def test_resampling_draws_blocks_with_replacement():
    counts = np.zeros(10)
    repeated = 0
    for epoch in range(2000):
        order = epoch_order(10, seed=0, epoch=epoch, block_size=4, window=3, resampled=True)
        assert len(order) == 10
        counts += np.bincount(order, minlength=10)
        repeated += len(set(order)) < 10
    # Three blocks of 4 from one of 10 starts: a sample is in 10 places 2,000 times on average.
    # Its count within an epoch has a variance below 2, so 2,000 epochs one below sqrt(4,000) = 64.
    assert np.all(np.abs(counts - 2000) < 5 * 64)
    assert repeated > 1900


def test_blocks_hold_about_four_mebibytes():
    # 4 * 2**20 / 100,000 = 41.9; one of 10 MB is a block by itself; 4,096 at most.
    assert block_size_for(np.array([50_000, 150_000])) == 41
    assert block_size_for(np.array([10_000_000])) == 1
    assert block_size_for(np.array([0, 4])) == 4096


def test_whole_weights_repeat_each_sample_as_often():
    repetitions = Repetitions(np.array([1, 3, 1, 2], dtype=np.float32), seed=0)
    assert len(repetitions) == 7
    for epoch in (0, 1):
        assert np.bincount(repetitions.images(epoch, np.arange(7))).tolist() == [1, 3, 1, 2]
    # A pass over a source is in its order, so that it is read in sequence.
    assert repetitions.images(0, np.arange(2)).tolist() == [0, 2]


def test_a_fraction_goes_round():
    # 5 of 10 images each epoch, the other 5 in the next one; the last two whole and a half more.
    repetitions = Repetitions(np.array([0.5] * 10 + [1.5] * 2, dtype=np.float32), seed=0)
    assert len(repetitions) == 5 + 2 + 1
    seen = [np.bincount(repetitions.images(e, np.arange(8)), minlength=12) for e in range(4)]
    for first, second in ((seen[0], seen[1]), (seen[2], seen[3])):
        assert first[:10].sum() == second[:10].sum() == 5
        assert (first + second).tolist() == [1] * 10 + [3] * 2


def test_a_small_weight_is_not_forgotten():
    repetitions = Repetitions(np.array([0.01, 0.01, 1], dtype=np.float32), seed=0)
    seen = {
        image for epoch in range(2) for image in repetitions.images(epoch, np.arange(2)).tolist()
    }
    assert seen == {0, 1, 2}


def test_numbers_of_a_sample_follow_seed_epoch_and_place():
    def number(seed: int, epoch: int, position: int) -> float:
        return sample_generator(seed=seed, epoch=epoch, position=position).random()

    numbers = {number(*place) for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(numbers) == 4
    assert number(0, 1, 2) == number(0, 1, 2)


def test_epochs_follow_each_other_without_a_gap():
    epochs, places, ids = endless(7).samples(0, 21)
    assert epochs.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert places.tolist() == list(range(7)) * 3
    for epoch in range(3):
        expected = epoch_order(7, seed=5, epoch=epoch, block_size=41, window=256)
        assert ids[7 * epoch : 7 * epoch + 7].tolist() == expected


@pytest.mark.parametrize("sampling", ["permuted", "resampled"])
@pytest.mark.parametrize("count", [1, 3, 7, 16])
def test_positions_do_not_depend_on_how_they_are_asked_for(count, sampling):
    weights = [1, 1, 0.5, 0.5, 2, 1, 1]  # 8 samples
    _, _, whole = endless(7, weights=weights, sampling=sampling).samples(0, 64)
    order = endless(7, weights=weights, sampling=sampling)
    for start in reversed(range(0, 64, count)):  # backwards as well
        _, _, ids = order.samples(start, count)
        assert np.array_equal(ids[: 64 - start], whole[start : start + count])


def test_a_single_record_is_repeated():
    epochs, places, ids = endless(1).samples(3, 4)
    assert (epochs.tolist(), places.tolist(), ids.tolist()) == ([3, 4, 5, 6], [0] * 4, [0] * 4)


@pytest.mark.parametrize("parts", [1, 3])
def test_blocks_are_asked_for_once_in_the_order_of_their_windows(parts):
    # 10 images of 3 MB are 10 blocks of one; the window holds them all.
    order = endless(10, size=3_000_000)
    assert order.lead == 10
    asked = {
        part: [ids.tolist() for ids in order.blocks(0, 20, part=part, parts=parts)]
        for part in range(parts)
    }
    assert sorted(ids[0] for part in asked.values() for ids in part) == sorted([*range(10)] * 2)
    # Steps of 3 ask for the same as one call.
    steps = [
        ids for s in range(0, 20, 3) for ids in order.blocks(s, min(s + 3, 20), part=0, parts=1)
    ]
    assert [ids.tolist() for ids in steps] == [
        ids.tolist() for ids in order.blocks(0, 20, part=0, parts=1)
    ]


def test_what_comes_was_asked_for_a_window_before():
    # 3,000 images of 1 MB: blocks of 4, windows of 256 blocks are 1,024 images.
    order = endless(3000, size=2**20)
    assert (order.lead, order.window_start(1023), order.window_start(1024)) == (1024, 0, 1024)
    assert order.window_start(3000 + 5) == 3000
    asked = set[int]()
    begin = order.window_start(0)
    for step in range(0, 3000 - 32, 32):
        end = step + 32 + order.lead
        asked |= {i for ids in order.blocks(begin, end, part=0, parts=1) for i in ids.tolist()}
        begin = end
        assert asked >= set(order.samples(step, 32)[2].tolist())


def test_512_ranks_read_every_sample_once_and_every_node_every_block() -> None:
    nodes, ranks_per_node, batch_size, shard = 64, 8, 4, 1000
    n, world = 131_072, nodes * ranks_per_node  # 64 steps
    order = endless(n)
    epochs, _, ids = order.samples(0, n)
    assert not epochs.any()
    assert np.array_equal(np.sort(ids), np.arange(n))
    # The place of a sample says its rank, see TrainingBatches.
    ranks = np.arange(n) // batch_size % world
    assert np.bincount(ranks).tolist() == [n // world] * world
    # A rank on its own, also one that is resumed in the middle, sees just these.
    rank, steps = 300, n // (batch_size * world)
    own = [order.samples((m * world + rank) * batch_size, batch_size)[2] for m in range(steps)]
    assert np.array_equal(np.concatenate(own), ids[ranks == rank])
    resumed = endless(n).samples((40 * world + rank) * batch_size, batch_size)[2]
    assert np.array_equal(resumed, own[40])
    # A block lies in a window, whose samples go to all nodes: nearly every node reads from each
    # shard. So a node reads ahead every block, once, shared by its processes.
    node_shards = np.unique(ranks // ranks_per_node * 1000 + ids // shard)
    assert len(node_shards) > 0.99 * nodes * (n // shard)
    parts = [order.blocks(0, n, part=part, parts=ranks_per_node) for part in range(ranks_per_node)]
    ahead = np.concatenate([block for part in parts for block in part])
    assert np.array_equal(np.sort(ahead), np.arange(n))


@pytest.mark.parametrize(("n", "expected_mb"), [(1_281_167, 0.4), (20_000_000, 4.4)])
def test_the_order_of_an_epoch_takes_little_memory(n: int, expected_mb: float) -> None:
    # Blocks of 38 photographs: where each begins, and where each window does.
    order = EpochOrder(n, seed=0, epoch=0, block_size=38, window=256, resampled=False)
    order.samples(np.array([n // 2]))
    window = next(iter(order._windows.values()))
    kept = order.starts.nbytes + order._firsts.nbytes + window.nbytes
    assert kept / 1e6 < expected_mb
    assert order.starts.nbytes == 8 * -(-n // 38)
