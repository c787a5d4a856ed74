"""The blend by its formula."""

import torch
from scipy import stats

from vqtrain.latent_noise.blend import Blend


def test_a_share_of_each_sample_is_noise() -> None:
    z_q = torch.full((200, 2, 20, 20), 10.0, dtype=torch.float64)
    noise = Blend(std=3.0)
    noise.begin_step(3, 7)
    found = noise(z_q, torch.zeros(200, 1, 20, 20, dtype=torch.int64), None)
    # (1 - t) 10 + 3 t e: its mean tells t, and its deviation is 3 t.
    shares = found.flatten(1).std(1) / 3
    assert stats.kstest(shares.numpy(), stats.uniform.cdf).pvalue > 0.01
    torch.testing.assert_close(found.mean((1, 2, 3)), 10 * (1 - shares), rtol=0, atol=1.0)


def test_the_gradient_is_the_share_that_is_left() -> None:
    z_q = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    noise = Blend(std=3.0)
    noise(z_q, torch.zeros(2, 1, 4, 4, dtype=torch.int64), None).sum().backward()
    assert z_q.grad is not None
    for gradient in z_q.grad:
        assert gradient.std() < 1e-12
        assert 0 < gradient.mean() < 1
