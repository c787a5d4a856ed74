"""The noise by its formula, and its size over many samples."""

import pytest
import torch
from scipy import stats

from vqtrain.errors import ConfigError
from vqtrain.latent_noise.gaussian import Gaussian

IDS = torch.zeros(200, 1, 20, 20, dtype=torch.int64)


def test_each_sample_gets_normal_noise_of_its_own_size() -> None:
    z_q = torch.randn(200, 2, 20, 20, dtype=torch.float64)
    noise = Gaussian(max_std=0.8)
    noise.begin_step(3, 7)
    error = noise(z_q, IDS, None) - z_q
    sizes = error.flatten(1).std(1)
    assert stats.kstest((sizes / 0.8).numpy(), stats.uniform.cdf).pvalue > 0.01
    one = error[sizes.argmax()].flatten()
    assert stats.kstest((one / sizes.max()).numpy(), stats.norm.cdf).pvalue > 0.01


def test_it_depends_on_the_seed_and_the_step() -> None:
    z_q, noise = torch.zeros(2, 3, 4, 4), Gaussian(max_std=0.8)
    found = []
    for step, seed in ((0, 0), (0, 0), (1, 0), (0, 1)):
        noise.begin_step(step, seed)
        found.append(noise(z_q, IDS[:2], None))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3])


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_std must be at least 0 and finite, got -1"):
        Gaussian(max_std=-1.0)
