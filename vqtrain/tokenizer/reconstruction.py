"""The output of a tokenizer in training."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from vqtrain.codebooks.base import Quantized


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Samples after the encoder, the codebook and the decoder.

    Attributes:
        samples: Reconstructions, about in [-1, 1] but not clamped.
        quantized: The result of the codebook.
        latents: The input of the codebook.
        extra: Further channels of the decoder's output, for a loss; None if it has none.
    """

    samples: Float[Tensor, "b c *size"]
    quantized: Quantized
    latents: Float[Tensor, "b d *grid"]
    extra: Float[Tensor, "b e *size"] | None = None

    @classmethod
    def of(
        cls,
        decoded: Float[Tensor, "b _ *size"],
        channels: int,
        *,
        quantized: Quantized,
        latents: Float[Tensor, "b d *grid"],
    ) -> "Reconstruction":
        """Split the output of a decoder behind the channels of a sample."""
        samples, extra = decoded, None
        if decoded.shape[1] > channels:
            samples, extra = decoded[:, :channels], decoded[:, channels:]
        return cls(samples=samples, quantized=quantized, latents=latents, extra=extra)
