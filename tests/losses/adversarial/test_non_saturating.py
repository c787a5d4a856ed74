"""Both losses by hand, and that each side wants the opposite of the other."""

import math

import pytest
import torch

from vqtrain.losses.adversarial.non_saturating import NonSaturating


def logits(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.fixture(params=["cross_entropy", "hinge"])
def word(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_both_losses_by_hand(word: str) -> None:
    real, fake = logits(2.0, 0.5), logits(-3.0, 1.0)
    loss = NonSaturating(discriminator_loss=word, image_means=False)
    expected = {
        "cross_entropy": (softplus(-2) + softplus(-0.5) + softplus(-3) + softplus(1)) / 4,
        "hinge": (0 + 0.5 + 0 + 2) / 4,  # margins of 1 for 2, 0.5, -3 and 1
    }
    assert loss.discriminator(real, fake).item() == pytest.approx(expected[word], rel=1e-12)
    generator = (softplus(3) + softplus(-1)) / 2
    assert loss.generator(fake).item() == pytest.approx(generator, rel=1e-12)


def test_the_generator_may_see_the_mean_logit_of_each_image() -> None:
    fake = torch.tensor([[-3.0, 1.0], [2.0, 0.5]], dtype=torch.float64).reshape(2, 1, 1, 2)
    loss = NonSaturating(discriminator_loss="hinge", image_means=True)
    # The means are -1 and 1.25.
    assert loss.generator(fake).item() == pytest.approx((softplus(1) + softplus(-1.25)) / 2)


def test_each_side_wants_the_opposite_of_the_other(word: str) -> None:
    real, fake = logits(0.5).requires_grad_(), logits(-0.5).requires_grad_()
    loss = NonSaturating(discriminator_loss=word, image_means=False)
    for_real, for_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
    (for_generator,) = torch.autograd.grad(loss.generator(fake), fake)
    # Down a gradient: the discriminator raises real and lowers fake, the generator raises fake.
    assert for_real.item() < 0
    assert for_fake.item() > 0
    assert for_generator.item() < 0
