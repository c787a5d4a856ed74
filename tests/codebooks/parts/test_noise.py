"""Noise by the place of a sample in a step; over ranks see the contract of codebooks."""

import pytest
import torch
from scipy import stats

from vqtrain.codebooks.parts.noise import NoiseSource


def test_noise_belongs_to_the_place_of_an_image_and_not_to_its_batch() -> None:
    like = torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    joined, split = NoiseSource(), NoiseSource()
    joined.seed = split.seed = 7
    whole = joined.next_call(4).normal(like)
    parts = [split.next_call(2).normal(like[:2]) for _ in range(2)]
    assert torch.equal(whole, torch.cat(parts))
    joined.discard_step()
    assert torch.equal(joined.next_call(4).normal(like), whole)
    joined.discard_step()
    joined.seed = 8
    assert not torch.equal(joined.next_call(4).normal(like), whole)


def test_noise_is_the_same_each_time_it_is_asked_for_in_a_call_and_other_in_the_next() -> None:
    noise = NoiseSource()
    call, scores = noise.next_call(2), torch.zeros(6, 5)
    assert torch.equal(call.gumbel(scores, 0), call.gumbel(scores, 0))
    assert not torch.equal(call.gumbel(scores, 0), call.gumbel(scores, 5))
    assert not torch.equal(call.gumbel(scores, 0), noise.next_call(2).gumbel(scores, 0))


@pytest.mark.parametrize("name", ["gumbel", "normal"])
def test_noise_has_the_distribution_that_it_says(name: str) -> None:
    call = NoiseSource().next_call(4)
    if name == "gumbel":
        values = call.gumbel(torch.zeros(400, 25, dtype=torch.float64), 0)
        expected = stats.gumbel_r.cdf
    else:
        values = call.normal(torch.zeros(4, 25, 10, 10, dtype=torch.float64))
        expected = stats.norm.cdf
    assert stats.kstest(values.flatten().numpy(), expected).pvalue > 0.01
