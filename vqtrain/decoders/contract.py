"""A check of the contract of decoders."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vqtrain.decoders.base import Decoder
from vqtrain.errors import require
from vqtrain.layers.promises import (
    check_causal,
    check_factors,
    check_gradients,
    check_result,
    repeatable,
)

BATCH, TOKENS = 2, 4


def check(decoder: Decoder, *, out_channels: int = 3, grid: Sequence[int] | None = None) -> None:
    """Check that a decoder keeps the promises of ``Decoder``.

    Args:
        decoder: As it is built.
        out_channels: Channels of a sample.
        grid: A grid of latents that it takes; None for four tokens along each axis.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    check_factors("upsampling", decoder.upsampling)
    grid = tuple(grid or (TOKENS for _ in decoder.upsampling))
    shape = (BATCH, out_channels + decoder.extra_channels, *decoder.size(grid))
    with repeatable():
        for dtype in (torch.float32, torch.float64):
            z_q = torch.randn(BATCH, decoder.in_channels, *grid, dtype=dtype)
            samples = decoder.to(dtype).eval()(z_q)
            check_result("samples", samples, shape, dtype, again=decoder(z_q))
            decoder.train()(z_q).square().sum().backward()
            if decoder.causal and dtype == torch.float64:
                check_causal("samples", decoder.eval(), z_q, [1] * grid[0])
    weight = getattr(decoder.last_layer, "weight", None)
    require(
        isinstance(weight, Tensor) and weight.grad is not None,
        "last_layer must have a weight that gets a gradient",
    )
    check_gradients(decoder)
