"""Code search that never holds the scores of all vectors for all codes."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# 8192 vectors against one tile of float32 scores take 34 MB; larger tiles are not faster.
TILE = 1024

# With more channels, matrix products by cuBLAS are ahead of a kernel in plain float32.
MAX_FUSED_DIM = 32

# Adds noise to the scores of codes [start, stop), in place.
AddNoise = Callable[[Tensor, int, int], Tensor]


def nearest(z: Float[Tensor, "n d"], codes: Float[Tensor, "k d"]) -> Int64[Tensor, " n"]:
    """Find the code with the smallest Euclidean distance to each vector.

    Of equally near codes the one with the lowest id wins.

    Example:
        >>> nearest(torch.tensor([[0.9], [0.1]]), torch.tensor([[0.0], [1.0]])).tolist()
        [1, 0]
    """
    return best(z, codes, nearness(codes))


def can_fuse(z: Float[Tensor, "n d"]) -> bool:
    """Say whether one kernel does the search faster than tiles do, and can do it here.

    A tile of scores is written to memory and read again, at 8 bytes a score, while a score takes
    2 d operations: the fewer the channels, the more there is to save. Exported graphs hold tiles.
    """
    is_small = z.is_cuda and z.dtype == torch.float32 and z.shape[1] <= MAX_FUSED_DIM
    return is_small and not torch.compiler.is_compiling() and find_spec("triton") is not None


def nearness(codes: Float[Tensor, "k d"]) -> Float[Tensor, " k"]:
    """Return the bias that makes an inner product rank codes by their distance.

    |z - c|^2 = |z|^2 - 2 (z.c - |c|^2 / 2), and |z|^2 is the same for all codes.
    """
    # Not by a sum of squares, as those of a large table are another such table.
    return torch.linalg.vector_norm(codes, dim=1).square() / -2


def best(
    z: Float[Tensor, "n d"],
    keys: Float[Tensor, "k d"],
    bias: Float[Tensor, " k"] | None,
    add_noise: AddNoise | None = None,
) -> Int64[Tensor, " n"]:
    """Find the key with the largest inner product plus bias for each vector.

    The loop goes over tiles of keys, not of vectors, so that an exported graph does not depend on
    the number of vectors. Of equal scores the lowest id wins.

    Args:
        z: The vectors.
        keys: What they are compared with.
        bias: Is added to the score of each key; None for none.
        add_noise: Is applied to each tile of scores, or None.

    Example:
        >>> best(torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [2.0]]), None).tolist()
        [1, 0]
    """
    if add_noise is None and can_fuse(z):
        from vqtrain.codebooks.parts.fused_search import fused_best  # needs Triton

        return fused_best(z, keys, bias)
    best_score = best_id = None
    # One buffer for all tiles: to get fresh memory for each takes as long as the product.
    buffer = z.new_empty(z.shape[0], min(TILE, keys.shape[0]))
    for start in range(0, keys.shape[0], TILE):
        stop = min(start + TILE, keys.shape[0])
        scores = buffer[:, : stop - start]
        torch.mm(z, keys[start:stop].T, out=scores)
        if bias is not None:
            scores += bias[start:stop]
        if add_noise is not None:
            scores = add_noise(scores, start, stop)
        score, within = scores.max(1)
        if best_score is None or best_id is None:
            best_score, best_id = score, within
        else:
            best_id = torch.where(score > best_score, within + start, best_id)
            best_score = torch.maximum(score, best_score)
    assert best_id is not None, "a codebook holds at least one code"
    return best_id
