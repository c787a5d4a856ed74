"""A check of the contract of loss terms."""

from collections.abc import Sequence

import torch

from vqtrain.errors import require
from vqtrain.layers.promises import repeatable, size_for
from vqtrain.losses.base import LossTerm


def check(
    term: LossTerm, *, in_channels: int = 3, sample_size: Sequence[int] | None = None
) -> None:
    """Check that a loss term keeps the promises of ``LossTerm``.

    Args:
        term: As it is built.
        in_channels: Channels of a sample.
        sample_size: A size that it takes; None for a small one of as many axes as it declares.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    sample_size = size_for(term) if sample_size is None else sample_size
    with repeatable():
        samples = torch.rand(2, in_channels, *sample_size) * 2 - 1
        reconstructions = (samples + 0.1 * torch.randn_like(samples)).requires_grad_()
        extra = [torch.randn(2, term.extra_channels, *sample_size, requires_grad=True)]
        extra = extra if term.extra_channels else []
        loss = term(reconstructions, samples, *extra)
        require(
            loss.shape == () and loss.dtype == torch.float32 and bool(loss.isfinite()),
            f"the loss of float32 samples must be a finite float32 scalar, got {loss.dtype} of "
            f"shape {list(loss.shape)}",
        )
        loss.backward()
        for gradient in (each.grad for each in (reconstructions, *extra)):
            require(
                gradient is not None
                and bool((gradient != 0).any())
                and bool(gradient.isfinite().all()),
                "the gradient must reach the reconstructions, and be finite",
            )
        twice = term(*(torch.cat([each] * 2) for each in (reconstructions, samples, *extra)))
        require(
            torch.allclose(twice, loss, rtol=1e-4),
            "the loss must be a mean over samples: that of a batch twice over must be the same",
        )
        given = [each.detach().double() for each in (reconstructions, samples, *extra)]
        wide = term.double()(*given)
        require(wide.dtype == torch.float64, "the loss of float64 samples must be float64")
    require(
        not any(parameter.requires_grad for parameter in term.parameters()),
        "a loss term is not trained: its parameters must not require a gradient",
    )
