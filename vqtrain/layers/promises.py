"""Checks that the contracts of several groups of networks share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from vqtrain.errors import require
from vqtrain.layers.causal import in_steps

# Sizes of the samples that parts are tried on, by the number of axes.
SIZES = {1: (4096,), 2: (64, 64), 3: (5, 32, 32)}


def size_for(part: object) -> tuple[int, ...]:
    """Return a small size of samples of as many axes as a part, or its class, declares; else 2."""
    return SIZES[getattr(part, "axes", None) or 2]


@contextmanager
def repeatable() -> Iterator[None]:
    """Compute gradients, and draw the same random numbers each time; others draw theirs as ever."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        yield


def check_factors(name: str, factors: object) -> None:
    """Require one whole number for each axis of a sample.

    Raises:
        ConfigError: If the factors are anything else.
    """
    is_right = isinstance(factors, tuple) and all(isinstance(n, int) and n >= 1 for n in factors)
    require(is_right, f"{name} must be a tuple of whole numbers, one per axis, got {factors!r}")


def check_result(
    name: str,
    result: Shaped[Tensor, "..."],
    shape: Sequence[int],
    dtype: torch.dtype,
    again: Shaped[Tensor, "..."],
) -> None:
    """Require that a result in eval mode has a shape and a dtype, and is repeatable.

    Raises:
        ConfigError: If it differs.
    """
    require(
        tuple(result.shape) == tuple(shape) and result.dtype == dtype,
        f"{name} must be {dtype} of shape {list(shape)}, got {result.dtype} of shape "
        f"{list(result.shape)}",
    )
    require(torch.equal(again, result), f"{name} must be the same for the same input in eval mode")


def check_causal(name: str, network: nn.Module, x: Tensor, lengths: Sequence[int]) -> None:
    """Require that nothing of a result depends on what comes later, and that pieces give the whole.

    Args:
        name: Of the results.
        network: A causal network in eval mode.
        x: Its input.
        lengths: Of the steps along the first axis in which it may be run.

    Raises:
        ConfigError: If the network is not causal, or forgets something between the steps.
    """
    later = x.clone()
    later[:, :, -lengths[-1] :] *= -1
    with torch.no_grad():
        whole, pieces, other = network(x), in_steps(network, x, lengths), network(later)
        known = in_steps(network, x[:, :, : -lengths[-1]], lengths[:-1]).shape[2]
    require(
        torch.allclose(other[:, :, :known], whole[:, :, :known], atol=1e-9),
        f"{name} of a causal network must not depend on what comes later along the first axis",
    )
    require(
        pieces.shape == whole.shape and torch.allclose(pieces, whole, atol=1e-9),
        f"{name} must be the same in pieces: its layers keep what they have seen in a Stream of "
        "vqtrain.layers.causal",
    )


def check_gradients(module: nn.Module) -> None:
    """Require that each trained parameter got a gradient in a backward pass.

    Raises:
        ConfigError: For the first one that got none.
    """
    for name, parameter in module.named_parameters():
        require(
            not parameter.requires_grad or parameter.grad is not None,
            f"parameter {name} gets no gradient: make it a buffer",
        )
