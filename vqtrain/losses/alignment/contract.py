"""A check of the contract of alignments."""

from collections.abc import Sequence

import torch

from vqtrain.errors import require
from vqtrain.layers.promises import check_gradients, repeatable
from vqtrain.losses.alignment.base import Alignment


def check(
    alignment: Alignment,
    *,
    in_channels: int = 3,
    sample_size: Sequence[int] = (64, 64),
    aligned_channels: int = 4,
    aligned_grid: Sequence[int] = (4, 4),
) -> None:
    """Check that an alignment keeps the promises of ``Alignment``.

    Args:
        alignment: As it is built.
        in_channels: Channels of a sample.
        sample_size: A size that it takes.
        aligned_channels: Channels of the latents that it takes.
        aligned_grid: Their grid.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    with repeatable():
        for dtype in (torch.float32, torch.float64):
            samples = torch.rand(2, in_channels, *sample_size, dtype=dtype) * 2 - 1
            latents = torch.randn(2, aligned_channels, *aligned_grid, dtype=dtype).requires_grad_()
            texts = ["a cat", "a dog"] if alignment.needs_text else []
            loss = alignment.to(dtype)(latents, samples, texts)
            require(
                loss.shape == () and loss.dtype == dtype and bool(loss.isfinite()),
                f"the loss of {dtype} latents must be a finite {dtype} scalar, got {loss.dtype} of "
                f"shape {list(loss.shape)}",
            )
            loss.backward()
            gradient = latents.grad
            require(
                gradient is not None and bool((gradient != 0).any()),
                "the gradient must reach the latents",
            )
    check_gradients(alignment)
