"""The form of the ids of a sample: how many, of which size, and which are neighbors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, final

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional as F

from vqtrain.errors import require
from vqtrain.ranges import at_least, check_fields
from vqtrain.tokenizer.model import Tokenizer


@final
@dataclass(frozen=True, kw_only=True)
class TokenForm:
    """The form of the ids of one sample.

    Attributes:
        size: Ids of each codebook.
        num_codebooks: Ids per grid position, k.
        token_shape: The shape of the ids of one sample, k first if there are several codebooks,
            as ``Tokenizer.token_shape`` gives it.
        grids: The grids whose ids are listed one after another, from coarse to fine; none where
            the ids are one grid.

    Raises:
        ConfigError: If they do not fit each other.
    """

    size: Annotated[int, at_least(1)]
    num_codebooks: Annotated[int, at_least(1)]
    token_shape: Sequence[Annotated[int, at_least(1)]]
    grids: Sequence[Sequence[int]] = ()

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        check_fields(self, "")
        k, shape, grids = self.num_codebooks, list(self.token_shape), self.grids
        require(
            len(shape) > (k > 1) and (k == 1 or shape[0] == k),
            f"the ids of {k} codebooks are [k, *grid], got {shape}",
        )
        require(
            not grids or (k == 1 and shape == [sum(map(math.prod, grids))]),
            f"the ids of grids {[list(grid) for grid in grids]} are one list, got {shape}",
        )

    @classmethod
    def of(cls, tokenizer: Tokenizer, sample_size: Sequence[int]) -> "TokenForm":
        """Return the form of a tokenizer's ids of samples of a size, without channels.

        Raises:
            ConfigError: If the tokenizer has no ids, or does not take that size.
        """
        tokenizer.check_ids()
        return cls(
            size=tokenizer.vocab_size,
            num_codebooks=tokenizer.codebook.num_codebooks,
            token_shape=tokenizer.token_shape(*sample_size),
            grids=tokenizer.codebook.token_grids,
        )

    @property
    def num_tokens(self) -> int:
        """Ids of one sample, of all codebooks."""
        return math.prod(self.token_shape)

    @property
    def levels(self) -> list[tuple[int, ...]]:
        """The grids of ids that follow each other: of each scale, or of each codebook."""
        grid = self.token_shape if self.num_codebooks == 1 else self.token_shape[1:]
        return [tuple(each) for each in self.grids or [grid] * self.num_codebooks]

    def contexts(self) -> Int64[Tensor, "c n"]:
        """Find the earlier ids that may tell most about each one.

        Ids are numbered in the order of ``token_shape``.

        Returns:
            For each id the number of the one before it along each axis of its grid, from the last
            axis on (left, upper, ...) and, of several levels, that of the level before at the same
            place; -1 where there is none.
        """
        levels = self.levels
        found, start = [], 0
        before: Tensor | None = None
        for grid in levels:
            own = torch.arange(start, start + math.prod(grid)).reshape(grid)
            rows = [_shifted(own, axis) for axis in reversed(range(len(grid)))]
            if len(levels) > 1:
                rows.append(torch.full_like(own, -1) if before is None else _at(before, grid))
            found.append(torch.stack(rows).flatten(1))
            before, start = own, start + own.numel()
        return torch.cat(found, dim=1)


def _shifted(numbers: Int64[Tensor, " *grid"], axis: int) -> Int64[Tensor, " *grid"]:
    """Put at each place the number that stands one before it along an axis, or -1."""
    shorter = numbers.narrow(axis, 0, numbers.shape[axis] - 1).movedim(axis, -1)
    return F.pad(shorter, (1, 0), value=-1).movedim(-1, axis)


def _at(coarse: Int64[Tensor, " *coarse"], grid: Sequence[int]) -> Int64[Tensor, " *grid"]:
    """Put at each place of a grid the number of the coarser cell that its first corner is in."""
    for axis, (side, there) in enumerate(zip(grid, coarse.shape, strict=True)):
        coarse = coarse.index_select(axis, torch.arange(side) * there // side)
    return coarse
