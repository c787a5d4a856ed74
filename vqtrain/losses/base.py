"""The contract of every loss term."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class LossTerm(nn.Module, ABC):
    """Compares reconstructions with their samples.

    The name, weight, first step and ramp of a term are keys of ``loss.<name>`` in the configuration
    (see ``vqtrain.losses.parts.weight_ramp``). A kind holds only its formula, and is not trained.

    Attributes:
        axes: Axes of a sample besides its channels, 2 for images; None for any number. Of clips, a
            term of images is given frames.
        extra_channels: Of the decoder's output besides the sample, which ``forward`` then takes as
            its third argument, ``extra``; 0 for a term that compares samples alone.
    """

    axes: int | None = None
    extra_channels: int = 0

    @abstractmethod
    def forward(
        self, reconstructions: Float[Tensor, "b c *size"], samples: Float[Tensor, "b c *size"]
    ) -> Float[Tensor, ""]:
        """Return the unweighted loss of one batch, a mean over its samples.

        Args:
            reconstructions: In at least float32; only they get gradients.
            samples: In [-1, 1].

        Returns:
            A scalar of at least float32.
        """
