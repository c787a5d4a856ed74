"""Codes that tell a transformer where on a grid each token is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import require
from vqtrain.ops.precision import at_least_float32

TABLES = ("learned", "learned_2d", "sincos_2d")  # added to the tokens
KINDS = (*TABLES, "rope_2d")

# Of sines and cosines. Queries and the codes of a sequence start as large: much smaller than the
# patches, they leave all queries alike, which then learn little but a mean color.
SINE_STD = 0.5**0.5
BASE = 10_000.0  # wavelengths go up to 2 pi times this


class Positions(nn.Module, ABC):
    """Where the tokens of a grid [rows, columns] are.

    Args:
        grid: The grid of training. On another one, codes are interpolated, so that both span the
            same picture.
    """

    def __init__(self, grid: Sequence[int]) -> None:
        super().__init__()
        require(len(grid) == 2, f"positions are of a grid of 2 axes, got {list(grid)}")
        self.grid = (grid[0], grid[1])

    def added(self, grid: Sequence[int]) -> Float[Tensor, "n dim"] | None:
        """Return what is added to the tokens, row by row; None for nothing."""
        del grid
        return None

    def rotation(self, grid: Sequence[int]) -> Float[Tensor, "2 n pairs"] | None:
        """Return cosines and sines by which queries and keys are turned; None for none."""
        del grid
        return None


class Table(Positions, ABC):
    """A code for each position of the grid of training, added to its token."""

    @abstractmethod
    def table(self) -> Float[Tensor, "dim rows columns"]:
        """Return the codes of the grid of training."""

    def added(self, grid: Sequence[int]) -> Float[Tensor, "n dim"]:
        """Return the codes of a grid, by bicubic interpolation with antialiasing."""
        table = at_least_float32(self.table())
        if tuple(grid) != self.grid:
            (table,) = F.interpolate(table[None], tuple(grid), mode="bicubic", antialias=True)
        return rearrange(table, "dim rows columns -> (rows columns) dim")


@final
class Learned(Table):
    """A learned code for each position.

    Args:
        grid: Rows and columns in training.
        dim: Channels of the tokens.
        std: Standard deviation of the codes at the start.
    """

    def __init__(self, grid: Sequence[int], dim: int, std: float) -> None:
        super().__init__(grid)
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim, *grid), std=std))

    def table(self) -> Float[Tensor, "dim rows columns"]:
        """Return them."""
        return self.weight


@final
class Learned2d(Table):
    """A learned code for each row plus one for each column.

    Args:
        grid: Rows and columns in training.
        dim: Channels of the tokens.
        std: Standard deviation of both at the start.

    References:
        As in FlexTok, Bachmann et al. 2025, arXiv:2502.13967.
    """

    def __init__(self, grid: Sequence[int], dim: int, std: float) -> None:
        super().__init__(grid)
        self.rows = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim, grid[0]), std=std))
        self.columns = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim, grid[1]), std=std))

    def table(self) -> Float[Tensor, "dim rows columns"]:
        """Add them up."""
        return self.rows[:, :, None] + self.columns[:, None, :]


@final
class SinCos2d(Table):
    """Fixed sines and cosines: of the column in the first half of the channels, then of the row.

    Args:
        grid: Rows and columns in training.
        dim: Channels of the tokens, a multiple of 4.

    References:
        He et al. 2022, arXiv:2111.06377, whose order of channels this is.
    """

    def __init__(self, grid: Sequence[int], dim: int) -> None:
        super().__init__(grid)
        require(dim % 4 == 0, f"positions=sincos_2d needs a dim that 4 divides, got {dim}")
        rows, columns = (waves(torch.arange(n, dtype=torch.float64), dim // 4) for n in grid)
        along_rows = rows.T[:, :, None].expand(-1, -1, grid[1])
        along_columns = columns.T[:, None, :].expand(-1, grid[0], -1)
        table = torch.cat(
            [along_columns.sin(), along_columns.cos(), along_rows.sin(), along_rows.cos()]
        )
        self.register_buffer("weight", table.to(torch.get_default_dtype()))
        self.weight: Tensor

    def table(self) -> Float[Tensor, "dim rows columns"]:
        """Return them."""
        return self.weight


@final
class Rope2d(Positions):
    """Rotations of queries and keys, so that attention sees differences of positions.

    The first half of the channels of a head turns with the row, the second with the column. Pairs
    of neighboring channels turn together.

    Args:
        grid: Rows and columns in training.
        head_dim: Channels of an attention head, a multiple of 4.

    References:
        Su et al. 2021, arXiv:2104.09864; for images as in LlamaGen, Sun et al. 2024,
        arXiv:2406.06525.
    """

    def __init__(self, grid: Sequence[int], head_dim: int) -> None:
        super().__init__(grid)
        require(
            head_dim % 4 == 0, f"positions=rope_2d needs a head_dim that 4 divides, got {head_dim}"
        )
        self.pairs = head_dim // 4
        # Tells where the module is and in which precision; it has no other tensor.
        self.register_buffer("base", torch.tensor(BASE))
        self.base: Tensor

    def rotation(self, grid: Sequence[int]) -> Float[Tensor, "2 n pairs"]:
        """Return the rotations of a grid that is stretched over that of training."""
        base = at_least_float32(self.base)
        rows, columns = (
            waves(
                (torch.arange(n, dtype=base.dtype, device=base.device) + 0.5) * (own / n) - 0.5,
                self.pairs,
            )
            for n, own in zip(grid, self.grid, strict=True)
        )
        angles = torch.cat(
            [
                rows[:, None].expand(-1, grid[1], -1),
                columns[None].expand(grid[0], -1, -1),
            ],
            dim=-1,
        ).flatten(0, 1)
        return torch.stack([angles.cos(), angles.sin()])


def waves(places: Float[Tensor, " n"], count: int) -> Float[Tensor, "n {count}"]:
    """Multiply places by frequencies that fall geometrically from 1 to nearly 1 / 10,000."""
    exponents = torch.arange(count, dtype=places.dtype, device=places.device) / count
    return places[:, None] * BASE**-exponents


def rotate(
    x: Float[Tensor, "b heads n head_dim"], rotation: Float[Tensor, "2 n pairs"]
) -> Float[Tensor, "b heads n head_dim"]:
    """Turn each pair of neighboring channels by its angle."""
    cos, sin = rotation.to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def build_table(kind: str, *, grid: Sequence[int], dim: int, std: float = 0.02) -> Table:
    """Build codes that are added to tokens, by their word.

    Args:
        kind: One of ``TABLES``.
        grid: Rows and columns in training.
        dim: Channels of the tokens.
        std: Standard deviation of learned codes at the start.
    """
    if kind == "sincos_2d":
        return SinCos2d(grid, dim)
    return (Learned2d if kind == "learned_2d" else Learned)(grid, dim, std)
