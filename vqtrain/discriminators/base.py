"""The contract every discriminator keeps."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Discriminator(nn.Module, ABC):
    """Tells reconstructions from images, patch by patch.

    It is always in training mode, and it judges images and reconstructions in separate batches.

    Attributes:
        least_batch_size: Images that a batch must hold at least.
    """

    least_batch_size: int

    @abstractmethod
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 rows columns"]:
        """Return one logit a patch: positive where it takes images in [-1, 1] for real."""
