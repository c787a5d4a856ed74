"""Both losses by hand, and that each side wants the opposite of the other."""

import math

import pytest
import torch

from vqtrain.losses.adversarial.non_saturating import NonSaturating


def logits(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_both_losses_by_hand() -> None:
    real, fake = logits(2.0, 0.5), logits(-3.0, 1.0)
    discriminator = (softplus(-2) + softplus(-0.5) + softplus(-3) + softplus(1)) / 4
    assert NonSaturating().discriminator(real, fake).item() == pytest.approx(
        discriminator, rel=1e-12
    )
    generator = (softplus(3) + softplus(-1)) / 2
    assert NonSaturating().generator(fake).item() == pytest.approx(generator, rel=1e-12)


def test_each_side_wants_the_opposite_of_the_other() -> None:
    real, fake = logits(0.5).requires_grad_(), logits(-0.5).requires_grad_()
    for_real, for_fake = torch.autograd.grad(
        NonSaturating().discriminator(real, fake), (real, fake)
    )
    (for_generator,) = torch.autograd.grad(NonSaturating().generator(fake), fake)
    # Down a gradient: the discriminator raises real and lowers fake, the generator raises fake.
    assert for_real.item() < 0
    assert for_fake.item() > 0
    assert for_generator.item() < 0
