"""What is minimized: the terms of the loss, put together in one place."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.losses.reconstruction import ReconstructionLoss
from vqtrain.tokenizer.model import Reconstruction


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The objective of one batch.

    Attributes:
        total: The one scalar that is differentiated.
        parts: Detached, weighted terms to log; they add up to the total.
    """

    total: Float[Tensor, ""]
    parts: Mapping[str, Tensor]


class Objective(nn.Module):
    """Adds up the weighted terms that train a tokenizer.

    Args:
        reconstruction: Compares reconstructions with images, pixel by pixel.
    """

    def __init__(self, *, reconstruction: ReconstructionLoss) -> None:
        super().__init__()
        self.reconstruction = reconstruction

    def forward(self, images: Float[Tensor, "b c h w"], output: Reconstruction) -> Terms:
        """Compute the terms of one batch.

        Args:
            images: In [-1, 1].
            output: What the tokenizer made of them.
        """
        terms = {
            "reconstruction": self.reconstruction(output.images, images),
            "codebook": output.quantized.loss,
        }
        return Terms(
            total=sum(terms.values(), start=images.new_zeros(())),
            parts={name: term.detach() for name, term in terms.items()},
        )
