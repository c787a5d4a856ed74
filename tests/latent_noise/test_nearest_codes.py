"""Which codes are replaced, how often, and by which."""

import pytest
import torch
from torch import Tensor

from vqtrain.errors import ConfigError
from vqtrain.latent_noise.nearest_codes import NearestCodes

# On a line, so that neighbors are known: those of code i are i - 1 and i + 1.
CODES = torch.arange(50.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0])


def changed(ids: Tensor, step: int = 0, **settings: object) -> Tensor:
    arguments = {"share": 1.0, "probability": 1.0, "neighbors": 3, "decay_steps": 10, **settings}
    noise = NearestCodes(**arguments)  # type: ignore[arg-type]  # plain data
    noise.begin_step(step, 7)
    z_q = CODES[ids[:, 0]].movedim(-1, 1)
    return noise(z_q, ids, CODES)[:, 0].round().long()  # the first channel of a code is its id


def test_codes_become_one_of_the_nearest_with_equal_probability() -> None:
    ids = torch.full((50, 1, 20, 20), 25)
    counts = torch.bincount(changed(ids).flatten(), minlength=50)
    assert counts.nonzero().flatten().tolist() == [24, 25, 26]
    assert (counts[24:27] / counts.sum()).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_a_share_of_the_samples_and_of_their_tokens_is_changed() -> None:
    ids = torch.full((400, 1, 10, 10), 25)
    is_new = changed(ids, share=0.25, probability=0.6, neighbors=50) != 25
    per_sample = is_new.flatten(1).float().mean(1)
    assert (per_sample > 0).float().mean().item() == pytest.approx(0.25, abs=0.08)
    # One of the 50 neighbors is the code itself.
    expected = 0.6 * 49 / 50
    assert per_sample[per_sample > 0].mean().item() == pytest.approx(expected, abs=0.03)


def test_both_fall_to_nothing() -> None:
    ids = torch.full((50, 1, 20, 20), 25)
    # Half of the steps are left: half of the tokens, and 5 of 10 neighbors.
    found = changed(ids, step=5, neighbors=10)
    assert found.unique().tolist() == [23, 24, 25, 26, 27]
    assert (found != 25).float().mean().item() == pytest.approx(0.5 * 4 / 5, abs=0.02)
    assert (changed(ids, step=10) == 25).all()
    assert (changed(ids, step=12) == 25).all()


def test_the_gradient_is_that_of_the_unchanged_code() -> None:
    ids = torch.randint(0, 50, (2, 1, 4, 4))
    z_q = CODES[ids[:, 0]].movedim(-1, 1).requires_grad_()
    noise = NearestCodes(share=1.0, probability=1.0, neighbors=5, decay_steps=10)
    out = noise(z_q, ids, CODES)
    (out * torch.arange(64.0).view(2, 2, 4, 4)).sum().backward()
    assert z_q.grad is not None
    torch.testing.assert_close(z_q.grad, torch.arange(64.0).double().view(2, 2, 4, 4))


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ConfigError, match="neighbors must be at least 1, got 0"):
        changed(torch.zeros(1, 1, 2, 2, dtype=torch.int64), neighbors=0)
