"""Mean and covariance of features, summed over ranks, and the Frechet distance of two of them."""

from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from vqtrain.distributed import all_reduce_sum
from vqtrain.shapes import Mask


@final
class Moments:
    """Count, sum and sum of outer products of features, in float64; ranks add up theirs.

    The three are one matrix, the sum of outer products of [1, features] with itself.

    Args:
        dim: Number of features of a sample.
        device: Where the features are, also on a rank that gets none.
    """

    def __init__(self, *, dim: int, device: torch.device) -> None:
        self.sums = torch.zeros(1 + dim, 1 + dim, dtype=torch.float64, device=device)

    def add(self, features: Float[Tensor, "b d"], mask: Mask) -> None:
        """Add the features of a batch.

        Args:
            features: One row per sample.
            mask: False for samples that only fill up the batch; their features are ignored.
        """
        rows = torch.cat([torch.ones_like(features[:, :1]), features], dim=1).double()
        # Multiplication by the mask would keep a NaN of a sample that does not count.
        rows = torch.where(mask[:, None], rows, 0.0)
        self.sums.addmm_(rows.T, rows)

    def reduced(self) -> "Moments":
        """Return the moments over all ranks; every rank must call it."""
        total = Moments(dim=len(self.sums) - 1, device=self.sums.device)
        total.sums = all_reduce_sum(self.sums)
        return total

    def to(self, device: torch.device) -> "Moments":
        """Move the sums."""
        self.sums = self.sums.to(device)
        return self

    @property
    def count(self) -> int:
        """The number of samples."""
        return int(self.sums[0, 0])

    @property
    def mean(self) -> Float64[Tensor, " d"]:
        """The mean of the features; NaN without samples."""
        return self.sums[0, 1:] / self.sums[0, 0]

    @property
    def covariance(self) -> Float64[Tensor, "d d"]:
        """The unbiased covariance of the features; not finite with fewer than 2 samples."""
        count, mean = self.sums[0, 0], self.mean
        return (self.sums[1:, 1:] - count * torch.outer(mean, mean)) / (count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """Return the squared Frechet distance of two normal distributions with these moments.

    It is computed on the CPU, which takes seconds for 2048 features.

    Returns:
        At least 0; NaN if one of the two has fewer than 2 samples, or features that are not finite.

    References:
        Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500.
    """
    if min(first.count, second.count) < 2:
        return float("nan")
    difference = (first.mean - second.mean).cpu()
    a, b = first.covariance.cpu(), second.covariance.cpu()
    if not (a.isfinite().all() and b.isfinite().all()):
        return float("nan")
    # With a = r r^T, the eigenvalues of r^T b r are those of a b, but it is symmetric: they are
    # real whatever the rounding, and faster to find. None is negative but by rounding.
    eigenvalues, vectors = torch.linalg.eigh(a)
    root = vectors * eigenvalues.clamp(min=0).sqrt()
    trace_of_root = torch.linalg.eigvalsh(root.T @ b @ root).clamp(min=0).sqrt().sum()
    distance = difference.square().sum() + a.trace() + b.trace() - 2 * trace_of_root
    return max(0.0, distance.item())
