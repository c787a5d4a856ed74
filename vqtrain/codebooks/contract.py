"""What every codebook must do, as a check that any codebook can be put through."""

import copy
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.errors import ConfigError, require
from vqtrain.layers.promises import repeatable
from vqtrain.shapes import by

# Grids of latents of one, two and three axes.
GRIDS = ((16,), (4, 4), (2, 4, 3))
BATCH, PARTS = 8, 4
STEPS = 5
# Of codes that moved by joined batches and by their parts, in float64.
TOLERANCE = 1e-12
# The types of ids on disk.
UNSIGNED = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def check(codebook: Codebook, grids: Sequence[tuple[int, ...]] = GRIDS) -> None:
    """Check that a codebook keeps the promises of ``Codebook``; it is left as it was.

    Args:
        codebook: As it is built.
        grids: Grids of latents to try, of which the codebook takes at least one; its own last
            one of ``token_grids`` is tried as well.

    Raises:
        ConfigError: For the first promise that is not kept.
    """
    with repeatable():
        _check_attributes(codebook)
        taken = [grid for grid in (*grids, *codebook.token_grids[-1:]) if _takes(codebook, grid)]
        require(bool(taken), f"tokens() takes none of the grids {list(grids)}")
        for grid in taken:
            for dtype in (torch.float32, torch.float64):
                own = copy.deepcopy(codebook).to(dtype)
                for promise in (_check_decode, _check_finite, _check_not_finite, _check_gradients):
                    promise(copy.deepcopy(own), _latents(codebook, grid, dtype))
            _check_steps(copy.deepcopy(codebook).double(), grid)
            found = codebook.grid(codebook.tokens(grid))
            require(
                found == grid,
                f"grid() must give back the grid of the ids of tokens(), {by(grid)}, got {found}",
            )


def _latents(
    codebook: Codebook, grid: tuple[int, ...], dtype: torch.dtype
) -> Float[Tensor, "b c *grid"]:
    return torch.randn(BATCH, codebook.in_channels, *grid, dtype=dtype)


def _check_attributes(codebook: Codebook) -> None:
    for name, least in (
        ("dim", 1),
        ("in_channels", 1),
        ("num_codebooks", 0),
        ("size", 0),
        ("grid_unit", 1),
    ):
        value = getattr(codebook, name, None)
        require(
            isinstance(value, int) and value >= least,
            f"{name} must be a whole number of at least {least}, got {value!r}",
        )
    std = codebook.initial_std
    require(std is None or std > 0, f"initial_std must be above 0, or None, got {std!r}")
    for name in ("id_order", "selection_rule"):
        value = getattr(codebook, name, None)
        require(isinstance(value, str) and bool(value), f"{name} must be words, got {value!r}")


def _takes(codebook: Codebook, grid: tuple[int, ...]) -> bool:
    try:
        codebook.tokens(grid)
    except ConfigError:
        return False
    return True


def _check_decode(codebook: Codebook, z: Float[Tensor, "b c *grid"]) -> None:
    """Check eval mode: it repeats itself, changes nothing, and decode gives ``z_q`` back."""
    before = _state(codebook.eval())
    quantized = codebook(z)
    _check_quantized(codebook, z, quantized)
    grid = by(z.shape[2:])
    require(
        torch.equal(codebook(z).token_ids, quantized.token_ids),
        f"equal latents on a grid of {grid} must give equal ids in eval mode",
    )
    if codebook.num_codebooks:
        decoded = codebook.decode(quantized.token_ids)  # in float32 where nothing tells it more
        require(
            torch.equal(decoded.to(z.dtype), quantized.z_q),
            f"decode must give back the z_q of eval mode bit for bit, on a grid of {grid}",
        )
        narrow = next(dtype for dtype in UNSIGNED if codebook.size <= 2 ** (8 * dtype.itemsize))
        require(
            torch.equal(codebook.decode(quantized.token_ids.to(narrow)), decoded),
            f"decode must take {narrow} as ids, which shards of tokens hold",
        )
    _check_state(codebook, before, "forward in eval mode must not change the state dict")


def _check_finite(codebook: Codebook, z: Float[Tensor, "b c *grid"]) -> None:
    """Check what a batch gives in train mode, and that it moves nothing yet."""
    before = _state(codebook.train())
    codebook.begin_step(0, seed=0)
    _check_quantized(codebook, z, codebook(z * 10))
    _check_state(codebook, before, "forward in train mode must leave the state dict to update")


def _check_quantized(
    codebook: Codebook, z: Float[Tensor, "b c *grid"], quantized: Quantized
) -> None:
    grid = tuple(z.shape[2:])
    expected = {
        "z_q": ((BATCH, codebook.dim, *grid), z.dtype),
        "token_ids": ((BATCH, codebook.num_codebooks, *codebook.tokens(grid)), torch.int64),
        "loss": ((), z.dtype),
    }
    for name, (shape, dtype) in expected.items():
        value: Tensor = getattr(quantized, name)
        require(
            tuple(value.shape) == shape and value.dtype == dtype,
            f"{name} must be {dtype} of shape {list(shape)} for {z.dtype} latents on a grid of "
            f"{by(grid)}, got {value.dtype} of shape {list(value.shape)}",
        )
    require(bool(quantized.loss.isfinite()), "the loss must be finite for finite latents")
    _check_metrics(quantized.metrics)
    _check_ids(codebook, quantized)


def _check_metrics(metrics: Mapping[str, Tensor]) -> None:
    for name, value in metrics.items():
        is_right = not value.shape and not value.requires_grad and bool(value.isfinite())
        require(is_right, f"metric {name} must be a detached finite scalar")


def _check_ids(codebook: Codebook, quantized: Quantized) -> None:
    ids = quantized.token_ids
    require(
        not ids.numel() or 0 <= int(ids.min()) <= int(ids.max()) < codebook.size,
        f"ids must be at least 0 and below size={codebook.size}",
    )


def _check_not_finite(codebook: Codebook, z: Float[Tensor, "b c *grid"]) -> None:
    codebook.train().begin_step(0, seed=0)
    z.flatten(2)[0, 0, -1] = torch.nan
    quantized = codebook(z)
    _check_ids(codebook, quantized)
    is_finite = quantized.loss.isfinite() and quantized.z_q.isfinite().all()
    require(not is_finite, "the loss or z_q must not be finite for latents that are not finite")


def _check_gradients(codebook: Codebook, z: Float[Tensor, "b c *grid"]) -> None:
    codebook.train().begin_step(0, seed=0)
    quantized = codebook(z.requires_grad_())
    total = quantized.z_q.sin().sum() + quantized.loss
    if total.requires_grad:
        total.backward()
    gradient = torch.zeros_like(z) if z.grad is None else z.grad
    require(bool(gradient.isfinite().all()), "the gradient of the latents must be finite")
    require(
        bool((gradient.abs().sum(1) > 0).all()),
        f"the gradient must reach the latents of every position on a grid of {by(z.shape[2:])}",
    )
    for name, parameter in codebook.named_parameters():
        is_reached = parameter.grad is not None and bool((parameter.grad != 0).any())
        require(is_reached, f"parameter {name} gets no gradient: make it a buffer")


def _check_steps(codebook: Codebook, grid: tuple[int, ...]) -> None:
    """Check that splitting a step, discarding one and resuming make no difference."""
    new = copy.deepcopy(codebook.train())
    codebook.initialize(_latents(codebook, grid, torch.float64))
    split, retried = copy.deepcopy(codebook), copy.deepcopy(codebook)
    for step in range(STEPS):
        z = _latents(codebook, grid, torch.float64) * (1 + step)
        resumed = copy.deepcopy(new)
        resumed.load_state_dict(_state(codebook))
        retried.begin_step(step, seed=0)
        retried(_latents(codebook, grid, torch.float64))
        retried.discard_step()
        _check_state(retried, _state(codebook), "discard_step must leave no trace of the step")
        for own in (codebook, split, retried, resumed):
            own.begin_step(step, seed=0)
            for part in torch.chunk(z, PARTS if own is split else 1):
                own(part)
            torch.manual_seed(step)
            _check_metrics(own.update(step))
        after = _state(codebook)
        _check_state(resumed, after, "update must leave only the state dict to the next step")
        _check_state(retried, after, "discard_step must leave no trace of the step")
        _check_state(split, after, "the batches of a step must count as one batch", TOLERANCE)


def _state(codebook: Codebook) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in codebook.state_dict().items()}


def _check_state(
    codebook: Codebook,
    expected: Mapping[str, Shaped[Tensor, "..."]],
    promise: str,
    tolerance: float = 0.0,
) -> None:
    for name, tensor in codebook.state_dict().items():
        is_same = torch.allclose(tensor, expected[name], rtol=tolerance, atol=tolerance)
        require(is_same, f"{promise}: {name} differs")
