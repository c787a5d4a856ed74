"""A check of the contract of adversarial losses."""

import torch

from vqtrain.errors import require
from vqtrain.losses.adversarial.base import AdversarialLoss

SHAPES = ((4, 1, 3, 3), (4, 1, 5), (4, 1))


def check(loss: AdversarialLoss) -> None:
    """Check that an adversarial loss keeps the promises of ``AdversarialLoss``.

    Args:
        loss: As it is built.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float64):
            # Where a hinge still has a gradient.
            real = torch.full(shape, 0.5, dtype=dtype).requires_grad_()
            fake = torch.full(shape, -0.5, dtype=dtype).requires_grad_()
            for name, value in (
                ("generator", loss.generator(fake)),
                ("discriminator", loss.discriminator(real, fake)),
            ):
                require(
                    value.shape == () and value.dtype == dtype,
                    f"{name} must return a {dtype} scalar, got {value.dtype} of shape "
                    f"{list(value.shape)}",
                )
            (raised,) = torch.autograd.grad(loss.generator(fake), fake)
            for_real, for_fake = torch.autograd.grad(loss.discriminator(real, fake), (real, fake))
            require(bool((raised < 0).all()), "the generator must raise the logits of its samples")
            require(
                bool((for_real < 0).all()) and bool((for_fake > 0).all()),
                "the discriminator must raise the logits of samples and lower those of fakes",
            )
