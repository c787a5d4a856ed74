"""Both losses by hand, and that each side wants the opposite of the other."""

import pytest
import torch

from vqtrain.losses.adversarial.hinge import Hinge


def logits(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def test_both_losses_by_hand() -> None:
    real, fake = logits(2.0, 0.5), logits(-3.0, 1.0)
    # Real: (0 + 0.5) / 2 = 0.25. Fake: (0 + 2) / 2 = 1. Half their sum is 0.625.
    discriminator = 0.625
    assert Hinge().discriminator(real, fake).item() == pytest.approx(discriminator, rel=1e-12)
    generator = 1.0  # minus the mean of -3 and 1
    assert Hinge().generator(fake).item() == pytest.approx(generator, rel=1e-12)


def test_each_side_wants_the_opposite_of_the_other() -> None:
    real, fake = logits(0.5).requires_grad_(), logits(-0.5).requires_grad_()
    for_real, for_fake = torch.autograd.grad(Hinge().discriminator(real, fake), (real, fake))
    (for_generator,) = torch.autograd.grad(Hinge().generator(fake), fake)
    # Down a gradient: the discriminator raises real and lowers fake, the generator raises fake.
    assert for_real.item() < 0
    assert for_fake.item() > 0
    assert for_generator.item() < 0
