"""The contract every decoder keeps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import ConfigError
from vqtrain.shapes import by


class Decoder(nn.Module, ABC):
    """Turns quantized latents into samples, knowing nothing of the codebook they come from.

    Attributes:
        in_channels: Channels of the latents.
        upsampling: Elements of a sample per latent, along each axis of a sample.
        extra_channels: Channels of the output after those of the sample: what a loss wants besides,
            such as the scale of each value. Only training sees them.
        sample_size: The size of a sample that its position codes are for, without channels; None if
            all sizes are alike. Exported graphs take this size alone.
        causal: Whether nothing of a sample depends on latents that are later along the first axis,
            and the layers continue from piece to piece in a ``vqtrain.layers.causal.Stream``.
        latents_at_once: How many latents along that axis a causal decoder takes at once in eval
            mode, where it runs step by step.
    """

    in_channels: int
    upsampling: tuple[int, ...]
    extra_channels: int = 0
    sample_size: tuple[int, ...] | None = None
    causal: bool = False
    latents_at_once: int = 1

    @property
    @abstractmethod
    def last_layer(self) -> nn.Module:
        """The last linear map before the samples.

        The adaptive weight of an adversarial loss compares gradients on its ``weight``.
        """

    @abstractmethod
    def forward(self, z_q: Float[Tensor, "b z *grid"]) -> Float[Tensor, "b c *size"]:
        """Decode quantized latents into samples, about in [-1, 1] but not clamped to it.

        Their channels come first, and ``extra_channels`` after them.
        """

    def begin_step(self, step: int, seed: int) -> None:
        """Begin a step of training, with the same arguments on every rank.

        Decoders with random numbers of their own override this, so that the numbers do not depend
        on the ranks and batches of the step. Here it does nothing.

        Args:
            step: The number of generator updates before this one.
            seed: The seed of the run, from which random numbers of the step follow.
        """
        del step, seed

    def size(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the sample that a grid of latents is decoded into.

        Here each axis of the grid is multiplied by its upsampling; a decoder with another rule
        overrides this.

        Raises:
            ConfigError: If the decoder does not take that grid.
        """
        axes = len(self.upsampling)
        if len(grid) != axes:
            raise ConfigError(
                f"the decoder takes latents on a grid of {axes} axes, got a grid of {by(grid)}"
            )
        return tuple(n * factor for n, factor in zip(grid, self.upsampling, strict=True))
