"""The mean absolute error of what changes from frame to frame."""

from typing import final

from jaxtyping import Float
from torch import Tensor

from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.elementwise import difference


@final
class Temporal(LossTerm):
    """The mean absolute error of the differences of successive frames, of clips in [-1, 1].

    It is 0 where each frame has the same error, such as a wrong color, and large where errors
    flicker. So it is a further term beside one of whole clips. Of a clip of one frame it is 0.
    """

    axes = 3

    def forward(
        self, reconstructions: Float[Tensor, "b c t h w"], samples: Float[Tensor, "b c t h w"]
    ) -> Float[Tensor, ""]:
        """Compare the differences: those of the errors, as both are linear."""
        errors = difference(reconstructions, samples)
        changes = errors.diff(dim=2).abs()
        return changes.sum() / max(1, changes.numel())  # of no change it is 0, with a gradient of 0
