"""Nearest-code search that never holds the distances of all vectors to all codes."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# 8192 vectors against one tile of float32 distances take 67 MB; larger tiles are not faster.
TILE = 2048


def nearest(z: Float[Tensor, "n d"], codes: Float[Tensor, "k d"]) -> Int64[Tensor, " n"]:
    """Find the code with the smallest Euclidean distance to each vector.

    The loop goes over tiles of codes, not of vectors, so that an exported graph does not depend on
    the number of vectors. Of equally near codes the one with the lowest id wins.

    Example:
        >>> nearest(torch.tensor([[0.9], [0.1]]), torch.tensor([[0.0], [1.0]])).tolist()
        [1, 0]
    """
    best_score = best_id = None
    for start in range(0, codes.shape[0], TILE):
        tile = codes[start : start + TILE]
        # |z - c|^2 = |z|^2 + |c|^2 - 2 z.c, and |z|^2 does not change which code is nearest.
        scores = torch.addmm(tile.square().sum(1), z, tile.T, alpha=-2)
        score, within = scores.min(1)
        if best_score is None or best_id is None:
            best_score, best_id = score, within
        else:
            best_id = torch.where(score < best_score, within + start, best_id)
            best_score = torch.minimum(score, best_score)
    assert best_id is not None, "a codebook holds at least one code"
    return best_id
