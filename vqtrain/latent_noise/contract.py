"""A check of the contract of latent noise."""

import torch

from vqtrain.errors import require
from vqtrain.latent_noise.base import LatentNoise
from vqtrain.layers.promises import repeatable


def check(noise: LatentNoise, *, grid: tuple[int, ...] = (4, 4)) -> None:
    """Check that a latent noise keeps the promises of ``LatentNoise``.

    Args:
        noise: As it is built.
        grid: Of latents that it takes.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    with repeatable():
        codes = torch.randn(32, 3)
        ids = torch.randint(0, 32, (4, 1, *grid))
        given = codes if noise.needs_codes else None
        z_q = codes[ids[:, 0]].movedim(-1, 1).requires_grad_()
        noise.begin_step(0, 7)
        changed = noise(z_q, ids, given)
        require(
            changed.shape == z_q.shape and changed.dtype == z_q.dtype,
            f"the latents must keep their shape {list(z_q.shape)} and dtype, got "
            f"{list(changed.shape)} of {changed.dtype}",
        )
        changed.sum().backward()
        require(
            z_q.grad is not None and bool(z_q.grad.isfinite().all()),
            "the gradient must reach the quantized latents, and be finite",
        )
        noise.begin_step(0, 7)
        parts = [noise(z_q[i : i + 2], ids[i : i + 2], given) for i in (0, 2)]
        require(
            torch.allclose(torch.cat(parts), changed),
            "two batches of two samples must be changed as one batch of four: draw random numbers "
            "from those that are given",
        )
    require(not list(noise.parameters()), "noise is not trained: it must have no parameters")
