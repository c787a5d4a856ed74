"""The mean of a quantity over all images, on all ranks."""

from typing import final

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from vqtrain.distributed import all_reduce_sum


@final
class Mean:
    """Adds up values of single images, and reduces them over the ranks once, at the end.

    A mean of the means of batches or ranks is wrong as soon as one of them is smaller, so sum and
    count are kept apart, in float64.

    Args:
        device: Where the values are, also on a rank that gets none.
    """

    def __init__(self, *, device: torch.device) -> None:
        self._sum_and_count = torch.zeros(2, dtype=torch.float64, device=device)

    def update(self, values: Float[Tensor, " b"], mask: Bool[Tensor, " b"]) -> None:
        """Add the values of a batch.

        Args:
            values: One value for each image.
            mask: False for images that only fill up the batch; their values are ignored.
        """
        # Multiplication by the mask would keep a NaN of an image that does not count.
        kept = torch.where(mask, values.detach().double(), 0.0)
        self._sum_and_count += torch.stack([kept.sum(), mask.sum().double()])

    def state(self) -> Float64[Tensor, "2"]:
        """Return the sum and the count of this rank."""
        return self._sum_and_count.clone()

    def compute(self) -> float:
        """Return the mean over all ranks, NaN if there were no values; every rank must call it."""
        total, count = all_reduce_sum(self.state()).tolist()
        return total / count if count else float("nan")
