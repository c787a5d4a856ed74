"""The codes that a codebook starts from: vectors of the data, or the means of their clusters."""

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.codebooks.parts.search import nearest
from vqtrain.codebooks.parts.step_state import draw_positions


@torch.no_grad()
def draw_codes(z: Float[Tensor, "n d"], size: int) -> Float[Tensor, "size d"]:
    """Draw ``size`` codes from vectors of the data, the same on every rank that has the same z.

    Where there are fewer vectors than codes, those that come again are moved apart by noise of
    1 % of the data's standard deviation, since of two equal codes only one is ever chosen.
    """
    codes = z[draw_positions(z.shape[0], size).to(z.device)].clone()
    repeated = codes[z.shape[0] :]
    noise = torch.randn(repeated.shape, dtype=torch.float64).to(z)
    repeated += 0.01 * z.std() * noise
    return codes


@torch.no_grad()
def first_codes(
    z: Float[Tensor, "n d"], size: int, kmeans_iterations: int
) -> Float[Tensor, "size d"]:
    """Draw codes from the data, and move them to the means of what they win a number of times.

    Args:
        z: Vectors of the data.
        size: Number of codes.
        kmeans_iterations: Iterations of Lloyd's algorithm; 0 for none. A code that wins nothing
            stays.
    """
    codes = draw_codes(z, size)
    for _ in range(kmeans_iterations):
        ids = nearest(z, codes)
        counts = torch.bincount(ids, minlength=size)[:, None]
        sums = torch.zeros_like(codes).index_add_(0, ids, z)
        codes = torch.where(counts > 0, sums / counts.clamp(min=1), codes)
    return codes
