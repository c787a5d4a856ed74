"""The contract of every alignment."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


class Alignment(nn.Module, ABC):
    """Compares latents with what another model knows of their samples.

    Its parameters are trained with the tokenizer's and are part of a run's checkpoints, but not of
    the tokenizer. A model that is not trained is in none of its parameters and buffers.

    Attributes:
        layer: Name of the module of the tokenizer whose output is aligned, such as
            ``decoder.blocks.2``; None for the quantized latents.
        needs_text: Whether it reads the texts of samples.
    """

    layer: str | None = None
    needs_text: bool = False

    @abstractmethod
    def forward(
        self,
        latents: Float[Tensor, "b d *grid"],
        samples: Float[Tensor, "b c *size"],
        texts: Sequence[str],
    ) -> Float[Tensor, ""]:
        """Return the unweighted loss of one batch; collective.

        Args:
            latents: In at least float32, with gradients.
            samples: In [-1, 1].
            texts: One for each sample; none unless ``needs_text``.

        Returns:
            A scalar of at least float32.
        """


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """Latents and texts in one space.

    Attributes:
        images: Of the latents, of length 1.
        texts: Of the texts, of length 1.
    """

    images: Float[Tensor, "b dim"]
    texts: Float[Tensor, "b dim"]


class TextAlignment(Alignment):
    """Aligns quantized latents with texts in a space of both, in which either can be searched."""

    needs_text = True

    @abstractmethod
    def embed(self, latents: Float[Tensor, "b d *grid"], texts: Sequence[str]) -> Embeddings:
        """Map the quantized latents of samples, and texts, to the space of both."""
