"""Drawing ids, against probabilities worked out by hand."""

import pytest
import torch
from torch.testing import assert_close

from vqtrain.errors import ConfigError
from vqtrain.generation.sampling import Sampling, draw, kept_probabilities

# Probabilities 1/2, 1/8, 1/4, 1/8.
LOGITS = torch.tensor([8.0, 2.0, 4.0, 2.0]).log()


@pytest.mark.parametrize(
    ("sampling", "weights"),
    [
        (Sampling(), [8, 2, 4, 2]),
        (Sampling(temperature=0.5), [64, 4, 16, 4]),  # squares
        (Sampling(top_k=2), [8, 0, 4, 0]),
        (Sampling(top_k=9), [8, 2, 4, 2]),
        (Sampling(top_p=0.5), [8, 0, 0, 0]),
        (Sampling(top_p=0.51), [8, 0, 4, 0]),
        (Sampling(top_p=1.0), [8, 2, 4, 2]),
        (Sampling(top_p=1e-9), [8, 0, 0, 0]),
        # After the temperature: 64/88 is the share of the first.
        (Sampling(temperature=0.5, top_p=0.7), [64, 0, 0, 0]),
        # Of the two most likely ids, the first one has the share 2/3.
        (Sampling(top_k=2, top_p=0.6), [8, 0, 0, 0]),
    ],
)
def test_kept_probabilities(sampling: Sampling, weights: list[int]) -> None:
    kept = kept_probabilities(LOGITS, sampling)
    wanted = torch.tensor(weights, dtype=torch.float32)
    assert_close(kept / kept.sum(), wanted / wanted.sum())


def test_draws_have_these_probabilities_and_follow_the_generator() -> None:
    rows = LOGITS.expand(100, 200, 4)
    ids = draw(rows, Sampling(), torch.Generator().manual_seed(3))
    assert ids.shape == (100, 200)
    shares = ids.flatten().bincount() / ids.numel()
    assert_close(shares, torch.tensor([0.5, 0.125, 0.25, 0.125]), atol=0.015, rtol=0)
    assert torch.equal(ids, draw(rows, Sampling(), torch.Generator().manual_seed(3)))
    assert not torch.equal(ids, draw(rows, Sampling(), torch.Generator().manual_seed(4)))
    kept = draw(rows, Sampling(top_k=2), torch.Generator().manual_seed(3))
    assert kept.unique().tolist() == [0, 2]


def test_greedy_sampling_needs_no_chance() -> None:
    logits = torch.randn(5, 7)
    for sampling in (Sampling(temperature=0.0), Sampling(top_k=1)):
        generator = torch.Generator()
        before = generator.get_state()
        assert torch.equal(draw(logits, sampling, generator), logits.argmax(-1))
        assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("temperature", -0.1, "at least 0"),
        ("temperature", float("inf"), "finite"),
        ("top_k", 0, "at least 1"),
        ("top_p", 0.0, "above 0"),
        ("top_p", 1.5, "at most 1"),
    ],
)
def test_values_out_of_range_are_refused(name: str, value: float, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be .*{words}.*got"):
        Sampling(**{name: value})  # type: ignore[arg-type]  # some are whole numbers
