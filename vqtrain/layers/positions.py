"""Codes that tell a transformer where on a grid each token is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import require
from vqtrain.ops.precision import at_least_float32

TABLES_2D = ("learned", "learned_2d", "sincos_2d")  # added to the tokens
ROTATIONS = ("rope_2d", "rope_3d")
KINDS = (*TABLES_2D, "sincos_3d", *ROTATIONS)

# Of sines and cosines. Queries and the codes of a sequence start as large: much smaller than the
# patches, they leave all queries alike, which then learn little but a mean color.
SINE_STD = 0.5**0.5
BASE = 10_000.0  # wavelengths go up to 2 pi times this


class Positions(nn.Module, ABC):
    """Where the tokens of a grid [rows, columns] or [frames, rows, columns] are.

    Args:
        kind: One of ``KINDS``.
        grid: The grid of training. On another one, codes are interpolated, so that both span the
            same picture or clip.

    Raises:
        ConfigError: If the kind is for grids of another number of axes.
    """

    def __init__(self, kind: str, grid: Sequence[int]) -> None:
        super().__init__()
        axes = {"2d": "2", "3d": "3"}.get(kind[-2:], "2 or 3")
        require(
            str(len(grid)) in axes,
            f"positions={kind} needs a grid of {axes} axes, got {list(grid)}",
        )
        self.grid = tuple(grid)

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
    def table(self) -> Float[Tensor, "dim first *rest"]:
        """Return the codes of the grid of training."""

    def added(self, grid: Sequence[int]) -> Float[Tensor, "n dim"]:
        """Return the codes of a grid: bicubic with antialiasing, trilinear for clips."""
        table = at_least_float32(self.table())
        if tuple(grid) != self.grid:
            is_clip = len(self.grid) == 3
            mode = "trilinear" if is_clip else "bicubic"
            (table,) = F.interpolate(table[None], tuple(grid), mode=mode, antialias=not is_clip)
        return table.flatten(1).T


@final
class Learned(Table):
    """A learned code for each position.

    Args:
        grid: The grid of training.
        dim: Channels of the tokens.
        std: Standard deviation of the codes at the start.
    """

    def __init__(self, grid: Sequence[int], dim: int, std: float) -> None:
        super().__init__("learned", grid)
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim, *grid), std=std))

    def table(self) -> Float[Tensor, "dim first *rest"]:
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
        super().__init__("learned_2d", grid)
        self.rows = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim, grid[0]), std=std))
        self.columns = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim, grid[1]), std=std))

    def table(self) -> Float[Tensor, "dim rows columns"]:
        """Add them up."""
        return self.rows[:, :, None] + self.columns[:, None, :]


@final
class SinCos(Table):
    """Fixed sines and cosines of where a token is.

    ``sincos_2d``: of the column in the first half of the channels, then of the row. ``sincos_3d``:
    of the frame in the first quarter, then of column and row in 3/8 each.

    Args:
        kind: One of the two.
        grid: The grid of training.
        dim: Channels of the tokens, a multiple of 4, or of 16 for clips.

    References:
        He et al. 2022, arXiv:2111.06377, whose order of channels this is; Yang et al. 2024,
        arXiv:2408.06072 (CogVideoX), for the share of the frames.
    """

    def __init__(self, kind: str, grid: Sequence[int], dim: int) -> None:
        super().__init__(kind, grid)
        parts = shares(kind, grid, dim, of="dim")
        order = [*range(len(grid) - 2), -1, -2]  # the frame, the column, the row
        table = torch.cat([part for axis in order for part in _along(axis, grid, parts[axis])])
        self.register_buffer("weight", table.to(torch.get_default_dtype()))
        self.weight: Tensor

    def table(self) -> Float[Tensor, "dim first *rest"]:
        """Return them."""
        return self.weight


def _along(axis: int, grid: Sequence[int], count: int) -> list[Float[Tensor, "count first *rest"]]:
    """Return the sines and cosines of the place along one axis, the same along the others."""
    angles = waves(torch.arange(grid[axis], dtype=torch.float64), count).T
    shape = [1] * len(grid)
    shape[axis] = grid[axis]
    spread = angles.reshape(count, *shape).expand(count, *grid)
    return [spread.sin(), spread.cos()]


@final
class Rope(Positions):
    """Rotations of queries and keys, so that attention sees differences of positions.

    ``rope_2d``: the first half of the channels of a head turns with the row, the second with the
    column. ``rope_3d``: a quarter turns with the frame, then 3/8 each with row and column. Pairs of
    neighboring channels turn together.

    Args:
        kind: One of the two.
        grid: The grid of training.
        head_dim: Channels of an attention head, a multiple of 4, or of 16 for clips.

    References:
        Su et al. 2021, arXiv:2104.09864; for images as in LlamaGen, Sun et al. 2024,
        arXiv:2406.06525; for clips as in CogVideoX, Yang et al. 2024, arXiv:2408.06072.
    """

    def __init__(self, kind: str, grid: Sequence[int], head_dim: int) -> None:
        super().__init__(kind, grid)
        self.pairs = shares(kind, grid, head_dim, of="head_dim")
        # Tells where the module is and in which precision; it has no other tensor.
        self.register_buffer("base", torch.tensor(BASE))
        self.base: Tensor

    def rotation(self, grid: Sequence[int]) -> Float[Tensor, "2 n pairs"]:
        """Return the rotations of a grid that is stretched over that of training."""
        base = at_least_float32(self.base)
        angles = []
        for axis, (n, own, pairs) in enumerate(zip(grid, self.grid, self.pairs, strict=True)):
            places = torch.arange(n, dtype=base.dtype, device=base.device)
            turns = waves((places + 0.5) * (own / n) - 0.5, pairs)
            shape = [1] * len(grid)
            shape[axis] = n
            angles.append(turns.reshape(*shape, pairs).expand(*grid, pairs))
        joined = torch.cat(angles, dim=-1).flatten(0, -2)
        return torch.stack([joined.cos(), joined.sin()])


def shares(kind: str, grid: Sequence[int], dim: int, *, of: str) -> list[int]:
    """Return the pairs of channels of each axis.

    Raises:
        ConfigError: If the channels do not divide into them.
    """
    unit = 4 if len(grid) == 2 else 16
    require(dim % unit == 0, f"positions={kind} needs a {of} that {unit} divides, got {dim}")
    return [dim // 4] * 2 if len(grid) == 2 else [dim // 8, 3 * dim // 16, 3 * dim // 16]


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
        kind: One of ``KINDS`` but for ``ROTATIONS``.
        grid: The grid of training.
        dim: Channels of the tokens.
        std: Standard deviation of learned codes at the start.
    """
    if kind in ("sincos_2d", "sincos_3d"):
        return SinCos(kind, grid, dim)
    return (Learned2d if kind == "learned_2d" else Learned)(grid, dim, std)
