"""Networks over large images piece by piece, in the memory of one piece."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

# Neighbors share this part of a tile, in which one passes into the other.
OVERLAP_FRAC = 0.25


def in_tiles(
    network: Callable[[Tensor], Tensor], x: Float[Tensor, "b c h w"], *, tile: int, unit: int
) -> Float[Tensor, "b d h_out w_out"]:
    """Apply a network to overlapping square tiles, and blend what comes of them linearly.

    It is the network itself where every output depends on less than a tile; what a network sees
    of the whole, by normalization or attention, it then sees of each tile.

    Args:
        network: Scales both sides by one factor, whatever they are.
        x: What it is applied to.
        tile: Side of a tile, a multiple of ``unit``; an ``x`` within it is one tile.
        unit: Sides of ``x`` and places of tiles are multiples of this.

    Example:
        >>> x = torch.arange(12.0).reshape(1, 1, 2, 6)
        >>> in_tiles(lambda part: 2 * part, x, tile=4, unit=2).equal(2 * x)
        True
    """
    height, width = x.shape[2:]
    step = max(unit, round(tile * (1 - OVERLAP_FRAC)) // unit * unit)
    scale = 0.0
    total: Tensor | None = None
    weights: Tensor | None = None
    for top in _starts(height, tile, step):
        for left in _starts(width, tile, step):
            part = x[:, :, top : top + tile, left : left + tile]
            made = network(part)
            if total is None or weights is None:
                scale = made.shape[2] / part.shape[2]
                total = made.new_zeros(*made.shape[:2], round(height * scale), round(width * scale))
                weights = made.new_zeros(total.shape[2:])
            rows = slice(round(top * scale), round(top * scale) + made.shape[2])
            columns = slice(round(left * scale), round(left * scale) + made.shape[3])
            weight = _ramp(made, 2)[:, None] * _ramp(made, 3)
            total[:, :, rows, columns] += made * weight
            weights[rows, columns] += weight
    assert total is not None, "there is at least one tile"
    assert weights is not None, "likewise"
    return total / weights


def _starts(size: int, tile: int, step: int) -> list[int]:
    """Place tiles along a side; the last one ends where the side does, so all are full."""
    last = max(size - tile, 0)
    return [*range(0, last, step), last]


def _ramp(made: Float[Tensor, "b d h w"], axis: int) -> Float[Tensor, " n"]:
    """Weigh a side of a tile: it rises over the overlap and falls again, never to zero."""
    size = made.shape[axis]
    place = torch.arange(1, size + 1, dtype=made.dtype, device=made.device)
    return torch.minimum(place, size + 1 - place).clamp(max=max(1, round(size * OVERLAP_FRAC)))
