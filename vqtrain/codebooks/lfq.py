"""Lookup-free quantization: the id is the signs of the channels, and entropies do the learning."""

from typing import Annotated, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.codebooks.parts.binary import GroupBits, bits_of
from vqtrain.codebooks.parts.bits import to_ids, to_signs
from vqtrain.codebooks.parts.entropy import bit_entropies
from vqtrain.codebooks.parts.vectors import straight_through, to_grid, to_vectors
from vqtrain.ranges import above, at_least, checked


@final
class LFQ(Codebook):
    """Replaces each channel by its sign, -1 or 1; zero counts as negative.

    The entropy loss asks for a low per-sample entropy, and for a high codebook entropy over the
    vectors of all ranks.

    Args:
        size: Number of codes, a power of two up to 2^63.
        commitment_weight: Weight of the mean squared distance between latents and signs, >= 0.
        entropy_weight: Weight of the entropy loss, >= 0.
        diversity: Weight of the codebook entropy against the per-sample entropy, >= 0.
        temperature: Squared distance by which a code gets less probable by a factor of e in the
            entropies, above 0.
        group_bits: The codebook entropy is that of groups of so many bits, added up:
            memory and time grow with 2 to this power. 1 to 20.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Yu et al. 2023, arXiv:2310.05737, section 3.1. Deviation: the entropy of each vector is
        computed bit by bit, which is exact.
    """

    num_codebooks = 1
    id_order = "bit i of the id, from the lowest, is 1 where channel i is positive"
    selection_rule = "sign of each channel, zero is negative"

    unit: Tensor

    @checked
    def __init__(
        self,
        *,
        size: int,
        commitment_weight: Annotated[float, at_least(0)],
        entropy_weight: Annotated[float, at_least(0)],
        diversity: Annotated[float, at_least(0)],
        temperature: Annotated[float, above(0)],
        group_bits: GroupBits,
    ) -> None:
        super().__init__()
        self.size, self.dim = size, bits_of(size)
        # Not stored; it knows the precision of the codes.
        self.register_buffer("unit", torch.ones(()), persistent=False)
        self.commitment_weight, self.entropy_weight = commitment_weight, entropy_weight
        self.diversity, self.temperature, self.group_bits = diversity, temperature, group_bits

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Take the sign of each channel."""
        flat = to_vectors(z)
        token_ids = to_ids(flat.detach()).reshape(z.shape[0], *z.shape[2:])
        z_q = self.decode(token_ids[:, None]).to(z.dtype)
        distance = F.mse_loss(z, z_q)
        loss = self.commitment_weight * distance
        metrics = {"distance": distance.detach()}
        if self.training and self.entropy_weight:
            entropies = bit_entropies(flat, 1.0, self.temperature, self.group_bits)
            loss = loss + self.entropy_weight * (
                entropies.per_sample - self.diversity * entropies.codebook
            )
            metrics |= entropies.metrics
        return Quantized(
            z_q=straight_through(z, z_q),
            token_ids=token_ids[:, None],
            loss=loss,
            metrics=metrics,
        )

    def decode(self, token_ids: Int64[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Write ids as signs."""
        ids = token_ids[:, 0]
        return to_grid(to_signs(ids.flatten(), self.dim, self.unit.dtype), ids)
