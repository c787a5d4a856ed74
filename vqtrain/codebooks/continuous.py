"""No tokens: the latents as they are, the codebook of a plain autoencoder."""

from typing import Annotated, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.codebooks.parts.lookup import no_ids
from vqtrain.ranges import at_least, checked


@final
class Continuous(Codebook):
    """Passes latents on as they are, at no loss.

    It has no ids: ``encode`` is refused, and ``latents`` and ``quantize`` are what remains.

    Args:
        size: Changes nothing, so that a sweep over sizes can hold this baseline; None, or at
            least 1.
        dim: Channels of the latents, at least 1.

    Raises:
        ConfigError: If an argument is out of range.
    """

    size = 0
    num_codebooks = 0
    id_order = "no ids"
    selection_rule = "the latents themselves"

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)] | None,  # noqa: ARG002 - see its description
        dim: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, z: Float[Tensor, "b d *grid"]) -> Quantized:
        """Pass latents on."""
        return Quantized(
            z_q=z,
            token_ids=torch.empty(z.shape[0], 0, *z.shape[2:], dtype=torch.int64, device=z.device),
            loss=z.new_zeros(()),
        )

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Refuse: there are no ids."""
        del token_ids
        raise no_ids("continuous")
