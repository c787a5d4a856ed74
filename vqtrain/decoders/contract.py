"""What every decoder must do, as a check that any decoder can be put through."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vqtrain.decoders.base import Decoder
from vqtrain.errors import require
from vqtrain.shapes import by

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
    factors = decoder.upsampling
    require(
        isinstance(factors, tuple) and all(isinstance(n, int) and n >= 1 for n in factors),
        f"upsampling must be a tuple of whole numbers, one for each axis, got {factors!r}",
    )
    grid = tuple(grid or (TOKENS for _ in factors))
    size = decoder.size(grid)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        for dtype in (torch.float32, torch.float64):
            z_q = torch.randn(BATCH, decoder.in_channels, *grid, dtype=dtype)
            samples = decoder.to(dtype).eval()(z_q)
            shape = (BATCH, out_channels, *size)
            require(
                tuple(samples.shape) == shape and samples.dtype == dtype,
                f"samples must be {dtype} of shape {list(shape)} for a grid of {by(grid)}, got "
                f"{samples.dtype} of shape {list(samples.shape)}",
            )
            require(
                torch.equal(decoder(z_q), samples),
                "equal latents must give equal samples in eval mode",
            )
        decoder.train()(z_q).square().sum().backward()
    weight = getattr(decoder.last_layer, "weight", None)
    require(
        isinstance(weight, Tensor) and weight.grad is not None,
        "last_layer must have a weight that gets a gradient",
    )
    for name, parameter in decoder.named_parameters():
        require(
            not parameter.requires_grad or parameter.grad is not None,
            f"parameter {name} gets no gradient: make it a buffer",
        )
