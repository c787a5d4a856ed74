"""What is noted during a step, by hand; over ranks see the contract of codebooks."""

import pytest
import torch
from scipy import stats

from vqtrain.layers.step_state import Noise, Pool, Tally, draw_positions


def test_counts_and_sums_by_hand() -> None:
    counts, sums = Tally(3), Tally(3, 2)
    for z, ids in (([[1.0, 2.0], [3.0, 4.0]], [2, 0]), ([[5.0, 6.0], [7.0, 8.0]], [2, 2])):
        counts.count(torch.tensor(ids))
        sums.add(torch.tensor(ids), torch.tensor(z))
    assert counts.reduce().tolist() == [1.0, 0.0, 3.0]
    assert sums.reduce().tolist() == [[3.0, 4.0], [0.0, 0.0], [13.0, 16.0]]


def test_clear_leaves_nothing_behind_and_nothing_is_stored() -> None:
    counts = Tally(2)
    counts.count(torch.zeros(4, dtype=torch.int64))
    counts.clear()
    counts.count(torch.ones(1, dtype=torch.int64))
    assert counts.reduce().tolist() == [0.0, 1.0]
    assert counts.state_dict() == {}


def test_a_draw_takes_vectors_of_the_pool_none_twice() -> None:
    pool = Pool()
    vectors = torch.arange(12.0).reshape(3, 2, 2)
    for batch in vectors:
        pool.add(batch)
    drawn = pool.draw(4)
    rows = {tuple(row) for row in drawn.tolist()}
    assert len(rows) == 4
    assert rows <= {tuple(row) for row in vectors.flatten(0, 1).tolist()}
    assert len(pool.draw(100)) == 6  # there are no more


def test_a_draw_does_not_depend_on_how_a_step_is_cut_into_batches() -> None:
    # Two calls for each batch, the second one with fewer vectors, as a coarse scale has.
    first, second = torch.randn(8, 4, 3), torch.randn(8, 1, 3)
    drawn = []
    for parts in (1, 2, 4):
        pool = Pool()
        pool.calls = 2
        for a, b in zip(first.chunk(parts), second.chunk(parts), strict=True):
            pool.add(a.flatten(0, 1))
            pool.add(b.flatten(0, 1))
        torch.manual_seed(3)
        drawn.append(pool.draw(20))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    # Both calls are drawn from.
    assert {tuple(row) for row in drawn[0].tolist()} & {tuple(v[0]) for v in second.tolist()}


def test_no_position_comes_twice_before_every_other_came() -> None:
    assert sorted(draw_positions(10, 10).tolist()) == list(range(10))
    assert sorted(draw_positions(3, 7)[:6].tolist()) == [0, 0, 1, 1, 2, 2]


def test_noise_belongs_to_the_place_of_an_image_and_not_to_its_batch() -> None:
    like = torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    joined, split = Noise(), Noise()
    joined.seed = split.seed = 7
    whole = joined.next_call(4).normal(like)
    parts = [split.next_call(2).normal(like[:2]) for _ in range(2)]
    assert torch.equal(whole, torch.cat(parts))
    joined.clear()
    assert torch.equal(joined.next_call(4).normal(like), whole)
    joined.clear()
    joined.seed = 8
    assert not torch.equal(joined.next_call(4).normal(like), whole)


def test_noise_is_the_same_each_time_it_is_asked_for_in_a_call_and_other_in_the_next() -> None:
    noise = Noise()
    call, scores = noise.next_call(2), torch.zeros(6, 5)
    assert torch.equal(call.gumbel(scores, 0), call.gumbel(scores, 0))
    assert not torch.equal(call.gumbel(scores, 0), call.gumbel(scores, 5))
    assert not torch.equal(call.gumbel(scores, 0), noise.next_call(2).gumbel(scores, 0))


@pytest.mark.parametrize("name", ["gumbel", "normal"])
def test_noise_has_the_distribution_that_it_says(name: str) -> None:
    call = Noise().next_call(4)
    if name == "gumbel":
        values = call.gumbel(torch.zeros(400, 25, dtype=torch.float64), 0)
        expected = stats.gumbel_r.cdf
    else:
        values = call.normal(torch.zeros(4, 25, 10, 10, dtype=torch.float64))
        expected = stats.norm.cdf
    assert stats.kstest(values.flatten().numpy(), expected).pvalue > 0.01
