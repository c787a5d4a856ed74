"""What is noted during a step, by hand; over ranks see the contract of codebooks."""

import torch

from vqtrain.codebooks.parts.step_state import Counts, SampleBuffer, draw_positions


def test_counts_and_sums_by_hand() -> None:
    counts, sums = Counts(3), Counts(3, 2)
    for z, ids in (([[1.0, 2.0], [3.0, 4.0]], [2, 0]), ([[5.0, 6.0], [7.0, 8.0]], [2, 2])):
        counts.count(torch.tensor(ids))
        sums.add(torch.tensor(ids), torch.tensor(z))
    assert counts.take().tolist() == [1.0, 0.0, 3.0]
    assert sums.take().tolist() == [[3.0, 4.0], [0.0, 0.0], [13.0, 16.0]]


def test_clear_leaves_nothing_behind_and_nothing_is_stored() -> None:
    counts = Counts(2)
    counts.count(torch.zeros(4, dtype=torch.int64))
    counts.discard_step()
    counts.count(torch.ones(1, dtype=torch.int64))
    assert counts.take().tolist() == [0.0, 1.0]
    assert counts.state_dict() == {}


def filled(samples: SampleBuffer, batches: torch.Tensor) -> SampleBuffer:
    for batch in batches:
        samples.add(batch)
    return samples


def test_a_draw_takes_vectors_of_the_buffer_none_twice() -> None:
    samples = SampleBuffer()
    vectors = torch.arange(12.0).reshape(3, 2, 2)
    drawn = filled(samples, vectors).take(4)
    rows = {tuple(row) for row in drawn.tolist()}
    assert len(rows) == 4
    assert rows <= {tuple(row) for row in vectors.flatten(0, 1).tolist()}
    assert samples.batches == []
    assert len(filled(samples, vectors).take(100)) == 6  # there are no more
    # Images of several sizes have different numbers of vectors.
    for part in vectors.flatten(0, 1).split([1, 3, 2]):
        samples.add(part)
    assert {tuple(row) for row in samples.take(6).tolist()} == {
        tuple(row) for row in vectors.flatten(0, 1).tolist()
    }


def test_a_draw_does_not_depend_on_how_a_step_is_cut_into_batches() -> None:
    # Two calls for each batch, the second one with fewer vectors, as a coarse scale has.
    first, second = torch.randn(8, 4, 3), torch.randn(8, 1, 3)
    drawn = []
    for parts in (1, 2, 4):
        samples = SampleBuffer()
        samples.calls = 2
        for a, b in zip(first.chunk(parts), second.chunk(parts), strict=True):
            samples.add(a.flatten(0, 1))
            samples.add(b.flatten(0, 1))
        torch.manual_seed(3)
        drawn.append(samples.take(20))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    # Both calls are drawn from.
    assert {tuple(row) for row in drawn[0].tolist()} & {tuple(v[0]) for v in second.tolist()}


def test_no_position_comes_twice_before_every_other_came() -> None:
    assert sorted(draw_positions(10, 10).tolist()) == list(range(10))
    assert sorted(draw_positions(3, 7)[:6].tolist()) == [0, 0, 1, 1, 2, 2]
