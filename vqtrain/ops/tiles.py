"""Networks applied to many or large samples piece by piece, in the memory of one piece."""

import math
from collections.abc import Callable, Sequence
from itertools import product

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.errors import require

# Neighboring tiles overlap by this share, in which they are blended.
OVERLAP_FRAC = 0.25


def in_batches(
    network: Callable[[Tensor], Tensor], items: Shaped[Tensor, "..."], batch_size: int
) -> Shaped[Tensor, "..."]:
    """Apply a network to a few items at once, and join the results.

    Raises:
        ConfigError: If ``batch_size`` is below 1.
    """
    require(batch_size >= 1, f"batch_size must be at least 1, got {batch_size}")
    return torch.cat([network(batch) for batch in torch.split(items, batch_size)])


def in_tiles(
    network: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b c *size"],
    *,
    tile: Sequence[int],
    unit: Sequence[int],
) -> Float[Tensor, "b d *out"]:
    """Apply a network to overlapping tiles, and blend the results linearly.

    The result equals that of the whole where every output depends on less than a tile.
    Normalization and attention see one tile instead of the whole.

    Args:
        network: Scales each axis by one factor, whatever its size.
        x: The input.
        tile: Length of a tile along each axis, a multiple of ``unit``; a smaller ``x`` is one tile.
        unit: For each axis: its length and the positions of tiles are multiples of it.

    Example:
        >>> x = torch.arange(12.0).reshape(1, 1, 2, 6)
        >>> in_tiles(lambda part: 2 * part, x, tile=(4, 4), unit=(2, 2)).equal(2 * x)
        True
    """
    size = x.shape[2:]
    total: Tensor | None = None
    weights: Tensor | None = None
    scales: list[float] = []
    for starts in product(*map(_starts, size, unit, tile)):
        part = x[:, :, *(slice(a, a + n) for a, n in zip(starts, tile, strict=True))]
        result = network(part)
        if total is None or weights is None:
            scales = [n / m for n, m in zip(result.shape[2:], part.shape[2:], strict=True)]
            whole = [round(n * scale) for n, scale in zip(size, scales, strict=True)]
            total = result.new_zeros(*result.shape[:2], *whole)
            weights = result.new_zeros(whole)
        firsts = [round(start * scale) for start, scale in zip(starts, scales, strict=True)]
        place = tuple(slice(a, a + n) for a, n in zip(firsts, result.shape[2:], strict=True))
        weight = math.prod(_ramp(result, axis) for axis in range(2, result.ndim))
        total[:, :, *place] += result * weight
        weights[place] += weight
    assert total is not None, "there is at least one tile"
    assert weights is not None, "there is at least one tile"
    return total / weights


def _starts(size: int, unit: int, tile: int) -> list[int]:
    """Place tiles along an axis; the last one ends where the axis does, so all are full."""
    step = max(unit, round(tile * (1 - OVERLAP_FRAC)) // unit * unit)
    last = max(size - tile, 0)
    return [*range(0, last, step), last]


def _ramp(result: Float[Tensor, "b d *size"], axis: int) -> Float[Tensor, "..."]:
    """Weight a tile along an axis: rising and falling over the overlaps, never zero."""
    size = result.shape[axis]
    place = torch.arange(1, size + 1, dtype=result.dtype, device=result.device)
    ramp = torch.minimum(place, size + 1 - place).clamp(max=max(1, round(size * OVERLAP_FRAC)))
    return ramp.reshape(-1, *(1,) * (result.ndim - 1 - axis))
