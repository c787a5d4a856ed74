"""The codes that are nearest to a code."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Distances that are computed at once.
MAX_DISTANCES = 2**24


def nearest_codes(
    ids: Int64[Tensor, " n"], codes: Float[Tensor, "size c"], count: int
) -> Int64[Tensor, "n count"]:
    """Return for each id those of so many nearest codes, from near to far; the first is itself.

    Example:
        >>> nearest_codes(torch.tensor([3, 0]), torch.tensor([[0.0], [1.0], [5.0], [7.0]]), 3)
        tensor([[3, 2, 1],
                [0, 1, 2]])
    """
    found = [ids.new_empty(0, count)]
    for part in torch.split(ids, max(1, MAX_DISTANCES // len(codes))):
        # In float32 distances that differ by the rounding of a matrix product alone are equal.
        distances = torch.cdist(codes[part], codes).float()
        distances.scatter_(1, part[:, None], -1.0)  # before copies of itself
        found.append(distances.topk(count, largest=False, sorted=True).indices)
    return torch.cat(found)
