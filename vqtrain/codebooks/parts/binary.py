"""What codebooks of signs share: all but where the latents are put before."""

from typing import Annotated

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.codebooks.parts.bits import MAX_BITS, to_ids, to_signs
from vqtrain.codebooks.parts.entropy import bit_entropies
from vqtrain.codebooks.parts.lookup import ids_of
from vqtrain.codebooks.parts.vectors import straight_through, to_grid, to_vectors
from vqtrain.errors import ConfigError
from vqtrain.ranges import above, at_least, at_most, checked


class SignCodebook(Codebook):
    """Replaces each channel by its sign times a constant; zero counts as negative.

    Args:
        size: Number of codes, a power of two up to 2^63.
        commitment_weight: Weight of the mean squared distance between latents and codes, >= 0.
        entropy_weight: Weight of the entropy loss, >= 0.
        diversity: Weight of the codebook entropy against the per-sample entropy, >= 0.
        temperature: Squared distance by which a code gets less probable by a factor of e in the
            entropies, above 0.
        group_bits: The codebook entropy is that of groups of so many bits, added up:
            memory and time grow with 2 to this power. 1 to 20.

    Attributes:
        on_sphere: Whether latents are scaled to length one first, and codes have that length.

    Raises:
        ConfigError: If an argument is out of range.
    """

    num_codebooks = 1
    initial_std = 1.0
    id_order = "bit i of the id, from the lowest, is 1 where channel i is positive"
    selection_rule = "sign of each channel, zero is negative"
    on_sphere: bool
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
        group_bits: Annotated[int, at_least(1), at_most(20)],
    ) -> None:
        super().__init__()
        self.size, self.dim = size, bits_of(size)
        # Not stored; it knows the precision of the codes.
        self.register_buffer("unit", torch.ones(()), persistent=False)
        self.commitment_weight, self.entropy_weight = commitment_weight, entropy_weight
        self.diversity, self.temperature, self.group_bits = diversity, temperature, group_bits
        self.scale = self.dim**-0.5 if self.on_sphere else 1.0

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Take the sign of each channel."""
        if self.on_sphere:
            z = F.normalize(z, dim=1)
        flat = to_vectors(z)
        ids = to_ids(flat.detach())
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        z_q = to_grid(self.codes(ids), token_ids).to(z.dtype)
        distance = F.mse_loss(z, z_q)
        loss = self.commitment_weight * distance
        metrics = {"distance": distance.detach()}
        if self.training and self.entropy_weight:
            entropies = bit_entropies(flat, self.scale, self.temperature, self.group_bits)
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

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Write ids as signs."""
        ids = ids_of(token_ids, self)[:, 0]
        return to_grid(self.codes(ids.flatten()), ids)

    def codes(self, ids: Int64[Tensor, " n"]) -> Float[Tensor, "n c"]:
        """Return the codes that ids stand for."""
        return to_signs(ids, self.dim, self.unit.dtype) * self.scale


def bits_of(size: int) -> int:
    """Return the bits of a size that is a power of two, or name the nearest ones.

    Example:
        >>> bits_of(1024)
        10
    """
    bits = max(1, size).bit_length() - 1
    if not 2 <= size <= 2**MAX_BITS:
        raise ConfigError(f"size must be a power of two from 2 to 2^{MAX_BITS}, got {size}")
    if size != 2**bits:
        raise ConfigError(
            f"size must be a power of two, got {size}: nearest are {2**bits} and {2 ** (bits + 1)}"
        )
    return bits
