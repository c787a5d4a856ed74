"""Softmax over all codes, a tile at a time: forward keeps a few numbers a vector, backward repeats.

Scores are inner products plus a bias, l[n, k] = z[n].keys[k] + bias[k]. A plain implementation
holds several matrices of vectors times codes; here the largest are tiles of them.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from vqtrain.codebooks.parts.search import TILE, AddNoise

# Scores in one tile; about five tiles are held at a time.
TILE_SCORES = 2**22

# Below the largest score. Where exp underflows it takes twenty times as long, and e^-80 is nothing.
LEAST_SCORE = -80.0

Gradients = tuple[Tensor | None, ...]


def soft_lookup(
    z: Float[Tensor, "n d"],
    keys: Float[Tensor, "k d"],
    bias: Float[Tensor, " k"] | None,
    values: Float[Tensor, "k c"],
    add_noise: AddNoise | None = None,
) -> Float[Tensor, "n c"]:
    """Average values by the softmax of the scores, with gradients to everything.

    Args:
        z: The vectors.
        keys: What they are compared with.
        bias: Is added to the score of each key; None for none.
        values: What is averaged.
        add_noise: Is applied to each tile of scores, the same in every call, or None.

    Example:
        >>> z, keys = torch.zeros(1, 2), torch.ones(2, 2)
        >>> soft_lookup(z, keys, None, torch.tensor([[1.0], [3.0]])).tolist()
        [[2.0]]
    """
    return SoftLookup.apply(z, keys, bias, values, add_noise)


def soft_use(
    z: Float[Tensor, "n d"], keys: Float[Tensor, "k d"], bias: Float[Tensor, " k"] | None
) -> tuple[Float[Tensor, ""], Float[Tensor, " k"]]:
    """Return the entropy of the softmax of the scores, and its mean share of each key.

    Returns:
        The mean over vectors of the entropy of their distributions, in nats, and the mean of the
        distributions. Both have gradients to everything.

    Example:
        >>> entropy, share = soft_use(torch.zeros(3, 2), torch.ones(2, 2), None)
        >>> round(entropy.item(), 4), share.tolist()
        (0.6931, [0.5, 0.5])
    """
    return SoftUse.apply(z, keys, bias)


class SoftLookup(torch.autograd.Function):
    """Softmax times values, as attention does it."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        z: Tensor,
        keys: Tensor,
        bias: Tensor | None,
        values: Tensor,
        add_noise: AddNoise | None,
    ) -> Tensor:
        """Go over the tiles with a running maximum, so that nothing overflows."""
        tiles = Tiles(z, keys, bias, add_noise)
        largest, total = z.new_full((z.shape[0], 1), -torch.inf), z.new_zeros(z.shape[0], 1)
        mean = z.new_zeros(z.shape[0], values.shape[1])
        for part, scores in tiles:
            new_largest = torch.maximum(largest, scores.amax(1, keepdim=True))
            shrink = (largest - new_largest).exp_()
            weights = shares(scores, new_largest)
            total = total * shrink + weights.sum(1, keepdim=True)
            mean = torch.addmm(mean * shrink, weights, values[part])
            largest = new_largest
        mean /= total
        ctx.save_for_backward(z, keys, bias, values, largest + total.log(), mean)  # type: ignore[arg-type]  # None is taken
        ctx.add_noise = add_noise  # type: ignore[attr-defined]  # a place of our own
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, outer: Tensor) -> Gradients:
        """Compute the weights of each tile again."""
        z, keys, bias, values, normalizer, mean = ctx.saved_tensors  # type: ignore[attr-defined]  # torch sets it
        tiles = Tiles(z, keys, bias, ctx.add_noise)  # type: ignore[attr-defined]  # set in forward
        gradients = ScoreGradients(z, keys, bias, ctx.needs_input_grad)  # type: ignore[attr-defined]  # torch sets it
        needs_values = ctx.needs_input_grad[3]  # type: ignore[attr-defined]  # torch sets it
        of_values = torch.empty_like(values) if needs_values else None
        along = (outer * mean).sum(1, keepdim=True)
        for part, scores in tiles:
            weights = shares(scores, normalizer)
            if of_values is not None:
                torch.mm(weights.T, outer, out=of_values[part])
            gradients.add(part, torch.mm(outer, values[part].T).sub_(along).mul_(weights))
        return gradients.z, gradients.keys, gradients.bias, of_values, None


class SoftUse(torch.autograd.Function):
    """The mean entropy and the mean distribution of a softmax."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, z: Tensor, keys: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Go over the tiles twice: for the normalizers, then for the distributions."""
        tiles = Tiles(z, keys, bias, None)
        normalizer = z.new_full((z.shape[0], 1), -torch.inf)
        for _, scores in tiles:
            largest = scores.amax(1, keepdim=True)
            of_tile = shares(scores, largest).sum(1, keepdim=True).log_().add_(largest)
            normalizer = torch.logaddexp(normalizer, of_tile)
        share = z.new_empty(keys.shape[0])
        mean_score = z.new_zeros(z.shape[0], 1)
        for part, scores in tiles:
            weights = shares(scores.clone(), normalizer)
            share[part] = weights.mean(0)
            mean_score += weights.mul_(scores).sum(1, keepdim=True)
        ctx.save_for_backward(z, keys, bias, normalizer, mean_score)  # type: ignore[arg-type]  # None is taken
        return (normalizer - mean_score).mean(), share

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, of_entropy: Tensor, of_share: Tensor) -> Gradients:
        """Compute the weights of each tile twice: the softmax needs a mean over all keys."""
        z, keys, bias, normalizer, mean_score = ctx.saved_tensors  # type: ignore[attr-defined]  # torch sets it
        tiles = Tiles(z, keys, bias, None)
        gradients = ScoreGradients(z, keys, bias, ctx.needs_input_grad)  # type: ignore[attr-defined]  # torch sets it
        along = z.new_zeros(z.shape[0], 1)
        for part, scores in tiles:
            weights = shares(scores, normalizer)
            along += torch.mv(weights, of_share[part])[:, None]
        for part, scores in tiles:
            weights = shares(scores.clone(), normalizer)
            # dH/dl = -p (l - mean l), and dp/dl by of_share: p (g - mean g).
            inner = scores.sub_(mean_score).mul_(-of_entropy).add_(of_share[part]).sub_(along)
            gradients.add(part, inner.mul_(weights).div_(z.shape[0]))
        return gradients.z, gradients.keys, gradients.bias


def shares(scores: Tensor, normalizer: Tensor) -> Tensor:
    """Turn scores into shares of the softmax, in place."""
    return scores.sub_(normalizer).clamp_(min=LEAST_SCORE).exp_()


class Tiles:
    """The scores of all keys, a tile at a time, as often as one asks.

    A tile is written over by the next one. It may be changed.
    """

    def __init__(
        self, z: Tensor, keys: Tensor, bias: Tensor | None, add_noise: AddNoise | None
    ) -> None:
        self.z, self.keys, self.bias, self.add_noise = z, keys, bias, add_noise
        # Noise is drawn tile by tile, so that tiles with noise must not depend on the vectors.
        width = TILE if add_noise is not None else max(1, TILE_SCORES // max(1, z.shape[0]))
        self.width = min(width, keys.shape[0])
        self.buffer = z.new_empty(z.shape[0], self.width)

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Give the place and the scores of each tile."""
        for start in range(0, self.keys.shape[0], self.width):
            part = slice(start, min(start + self.width, self.keys.shape[0]))
            scores = self.buffer[:, : part.stop - start]
            torch.mm(self.z, self.keys[part].T, out=scores)
            if self.bias is not None:
                scores += self.bias[part]
            if self.add_noise is not None:
                scores = self.add_noise(scores, start, part.stop)
            yield part, scores


class ScoreGradients:
    """Gradients with respect to what scores are made of, from those with respect to the scores."""

    def __init__(
        self, z: Tensor, keys: Tensor, bias: Tensor | None, needed: tuple[bool, ...]
    ) -> None:
        self.inputs = (z, keys)
        self.z = torch.zeros_like(z) if needed[0] else None
        self.keys = torch.empty_like(keys) if needed[1] else None
        self.bias = torch.empty_like(bias) if bias is not None and needed[2] else None

    def add(self, part: slice, of_scores: Tensor) -> None:
        """Add a tile."""
        z, keys = self.inputs
        if self.z is not None:
            self.z.addmm_(of_scores, keys[part])
        if self.keys is not None:
            torch.mm(of_scores.T, z, out=self.keys[part])
        if self.bias is not None:
            self.bias[part] = of_scores.sum(0)
