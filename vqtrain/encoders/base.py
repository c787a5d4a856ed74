"""The contract every encoder keeps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import ConfigError
from vqtrain.shapes import by


class Encoder(nn.Module, ABC):
    """Turns samples into latents, knowing nothing of the codebook that comes next.

    Attributes:
        out_channels: Channels of the latents.
        downsampling: Elements of a sample per latent, along each axis of a sample.
        sample_size: The size of a sample that its position codes are for, without channels; None if
            all sizes are alike. Exported graphs take this size alone.
        causal: Whether no latent depends on anything later along the first axis of a sample, and
            the layers continue from piece to piece in a ``vqtrain.layers.causal.Stream``.
        latents_at_once: How many latents along that axis a causal encoder computes at once in eval
            mode, where it runs step by step.
    """

    out_channels: int
    downsampling: tuple[int, ...]
    sample_size: tuple[int, ...] | None = None
    causal: bool = False
    latents_at_once: int = 1

    @abstractmethod
    def forward(self, samples: Float[Tensor, "b c *size"]) -> Float[Tensor, "b z *grid"]:
        """Encode samples in [-1, 1]."""

    def load_pretrained(self, given: str | None) -> str | None:
        """Load published weights that the encoder wants to start from; by default there are none.

        It is called before the first step of a run whose encoder does not come from a tokenizer or
        a checkpoint. The constructor makes random weights.

        Args:
            given: ``weights.encoder``: the path of a file, or None to look in a cache.

        Returns:
            What was loaded, for people, or None.

        Raises:
            WeightsError: If they are missing or do not fit.
        """
        del given
        return None

    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the grid of the latents of one sample.

        Here each axis of the sample is divided by its downsampling; an encoder with another rule
        overrides this.

        Args:
            size: Of the axes of a sample, without its channels.

        Raises:
            ConfigError: If the encoder does not take that size; it names the nearest that fit.
        """
        if len(size) != len(self.downsampling):
            raise ConfigError(
                f"the encoder takes samples of {len(self.downsampling)} axes besides the channels, "
                f"got {by(size)}"
            )
        pairs = list(zip(size, self.downsampling, strict=True))
        if any(n < 1 or n % factor for n, factor in pairs):
            below = [max(1, n // factor) * factor for n, factor in pairs]
            above = [-(-max(1, n) // factor) * factor for n, factor in pairs]
            nearest = by(below) if below == above else f"{by(below)} and {by(above)}"
            raise ConfigError(
                f"a sample of {by(size)} does not divide into tokens of {by(self.downsampling)}, "
                f"the nearest sizes that do: {nearest}"
            )
        return tuple(n // factor for n, factor in pairs)

    def size(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the size of samples whose latents have a grid, the inverse of ``grid``.

        Here each axis of the grid is multiplied by its downsampling; an encoder with another rule
        overrides both.
        """
        return tuple(n * factor for n, factor in zip(grid, self.downsampling, strict=True))
