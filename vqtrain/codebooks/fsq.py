"""Finite scalar quantization: rounding each channel to a few levels; nothing is learned."""

import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.codebooks.parts.bits import MAX_BITS
from vqtrain.codebooks.parts.lookup import ids_of
from vqtrain.codebooks.parts.vectors import straight_through, to_grid, to_vectors
from vqtrain.errors import ConfigError, require

# Section 4.1 of the paper, by the size that each stands for; the first two are ours.
LEVELS = {
    2**4: (5, 3),
    2**6: (8, 8),
    2**8: (8, 6, 5),
    2**10: (8, 5, 5, 5),
    2**12: (7, 5, 5, 5, 5),
    2**14: (8, 8, 8, 6, 5),
    2**16: (8, 8, 8, 5, 5, 5),
}


@final
class FSQ(Codebook):
    """Squashes each channel by tanh and rounds it to evenly spaced levels in [-1, 1].

    No code can die, since none is learned, and there is no loss. An even number of levels lacks
    the one at 1, as zero is always a level.

    Args:
        size: The size that the levels stand for: 16, 64, 256, 1024, 4096, 16384 or 65536, or the
            product of the levels that the paper has for it, 15 to 64000. None if levels are given.
        levels: Levels of each channel, each at least 2; None for those of ``size``.
        eps: By what share of its range tanh reaches beyond the outermost levels, above 0.

    Raises:
        ConfigError: If there are no levels for the size, or levels are impossible.

    References:
        Mentzer et al. 2023, arXiv:2309.15505, section 3 and appendix A.1. Deviation: the range of
        tanh is widened by eps, not narrowed, as in the library vector-quantize-pytorch; so that two
        levels are possible.
    """

    num_codebooks = 1
    initial_std = 0.5  # most latents are then where tanh is steep
    id_order = "mixed radix, the first channel changes fastest, from its lowest level"
    selection_rule = "nearest level to the shifted tanh, in each channel by itself"
    counts: Tensor
    basis: Tensor
    half_width: Tensor

    def __init__(self, *, size: int | None, levels: Sequence[int] | None, eps: float) -> None:
        super().__init__()
        require(0 < eps < 0.5, f"eps must be above 0 and below 0.5, got {eps}")
        levels = list(levels) if levels is not None else levels_of(size)
        require(
            bool(levels) and min(levels) >= 2,
            f"levels must be one or more numbers of at least 2, got {levels}",
        )
        self.size, self.dim, self.eps = math.prod(levels), len(levels), eps
        require(
            size in (None, self.size, nominal_size(levels)),
            f"size={size} is not the product of levels={levels}, {self.size}: give one of them",
        )
        require(
            self.size <= 2**MAX_BITS,
            f"levels={levels} make {self.size} ids, more than int64 holds: at most 2^{MAX_BITS}",
        )
        basis = [math.prod(levels[:channel]) for channel in range(self.dim)]
        # They follow from the arguments, so they are not stored with the weights.
        self.register_buffer("counts", torch.tensor(levels), persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)
        half = torch.tensor([float(count // 2) for count in levels])
        self.register_buffer("half_width", half, persistent=False)

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Round each channel to its nearest level."""
        flat = to_vectors(z)
        half_range = (self.counts - 1).to(z.dtype) * ((1 + self.eps) / 2)
        offset = (self.counts % 2 == 0).to(z.dtype) / 2
        bounded = torch.tanh(flat + torch.atanh(offset / half_range)) * half_range - offset
        # What is not a number becomes some level, and stays none in z_q.
        digits = (bounded.detach().nan_to_num().round() + self.half_width).long()
        ids = (digits * self.basis).sum(1)
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        z_q = to_grid(self.codes(ids), token_ids).to(z.dtype)
        scaled = to_grid(bounded / self.half_width, token_ids)
        return Quantized(
            z_q=straight_through(scaled, z_q),
            token_ids=token_ids[:, None],
            loss=z.new_zeros(()),
            metrics={"distance": F.mse_loss(scaled.detach(), z_q)},
        )

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Read the digits of the ids."""
        ids = ids_of(token_ids, self)[:, 0]
        return to_grid(self.codes(ids.flatten()), ids)

    def codes(self, ids: Int64[Tensor, " n"]) -> Float[Tensor, "n c"]:
        """Return the levels that ids stand for."""
        digits = ids[:, None] // self.basis % self.counts
        return (digits - self.half_width) / self.half_width


def levels_of(size: int | None) -> list[int]:
    """Find the levels of a size by the table, or name the nearest sizes that it has."""
    if size is None:
        raise ConfigError("give size or levels, such as size=1024 or levels=[8,5,5,5]")
    for nominal, levels in LEVELS.items():
        if size in (nominal, math.prod(levels)):
            return list(levels)
    below = [nominal for nominal in LEVELS if nominal < size][-1:]
    above = [nominal for nominal in LEVELS if nominal > size][:1]
    near = " and ".join(f"{near} ({math.prod(LEVELS[near])} ids)" for near in below + above)
    raise ConfigError(
        f"there are no levels for size={size}, nearest are {near}; levels=[...] takes any"
    )


def nominal_size(levels: Sequence[int]) -> int | None:
    """Return the size that levels stand for, or None if they are not in the table."""
    return next((size for size, known in LEVELS.items() if known == tuple(levels)), None)
