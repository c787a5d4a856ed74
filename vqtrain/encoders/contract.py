"""What every encoder must do, as a check that any encoder can be put through."""

from collections.abc import Sequence
from itertools import pairwise

import torch

from vqtrain.encoders.base import Encoder
from vqtrain.errors import ConfigError, require
from vqtrain.layers.promises import (
    check_causal,
    check_factors,
    check_gradients,
    check_result,
    repeatable,
)
from vqtrain.shapes import by

BATCH, TOKENS = 2, 4


def check(
    encoder: Encoder, *, in_channels: int = 3, sample_size: Sequence[int] | None = None
) -> None:
    """Check that an encoder keeps the promises of ``Encoder``.

    Args:
        encoder: As it is built.
        in_channels: Channels of a sample.
        sample_size: A size that it takes; None for four tokens along each axis.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    check_factors("downsampling", encoder.downsampling)
    size = tuple(sample_size or encoder.size([TOKENS] * len(encoder.downsampling)))
    shape = (BATCH, encoder.out_channels, *encoder.grid(size))
    with repeatable():
        for dtype in (torch.float32, torch.float64):
            samples = torch.rand(BATCH, in_channels, *size, dtype=dtype) * 2 - 1
            latents = encoder.to(dtype).eval()(samples)
            check_result("latents", latents, shape, dtype, again=encoder(samples))
            require(
                torch.allclose(encoder(samples[:1]), latents[:1], rtol=1e-4, atol=1e-5),
                "the latents of a sample must not depend on the others of its batch in eval mode",
            )
            latents = encoder.train()(samples)
            if latents.requires_grad:  # else it is frozen, or the check of gradients says so
                latents.square().sum().backward()
            if encoder.causal and dtype == torch.float64:
                ends = [encoder.size((n, *shape[3:]))[0] for n in range(1, shape[2] + 1)]
                lengths = [after - before for before, after in pairwise([0, *ends])]
                check_causal("latents", encoder.eval(), samples, lengths)
    check_gradients(encoder)
    _check_refusal(encoder, size)


def _check_refusal(encoder: Encoder, size: Sequence[int]) -> None:
    wrong = (*size, 1)
    try:
        encoder.grid(wrong)
    except ConfigError:
        return
    raise ConfigError(f"grid must raise a ConfigError for a sample of {by(wrong)}")
