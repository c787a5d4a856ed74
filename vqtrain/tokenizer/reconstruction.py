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
    """

    samples: Float[Tensor, "b c *size"]
    quantized: Quantized
    latents: Float[Tensor, "b d *grid"]
