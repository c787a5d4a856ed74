"""Entropy losses: low entropy for each vector, high entropy of the use of all codes.

Both entropies are in nats, with gradients. The loss is the first minus the second (Yu et al. 2023,
arXiv:2310.05737, eq. 5).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vqtrain import distributed
from vqtrain.codebooks.parts.bits import to_signs
from vqtrain.codebooks.parts.softmax import soft_use


class Entropies(NamedTuple):
    """The two entropies.

    Attributes:
        per_sample: The mean entropy of each vector's distribution over codes.
        codebook: The entropy of the mean distribution over the vectors of all ranks.
    """

    per_sample: Float[Tensor, ""]
    codebook: Float[Tensor, ""]

    @property
    def metrics(self) -> dict[str, Tensor]:
        """Both as scalars to log."""
        return {
            "per_sample_entropy": self.per_sample.detach(),
            "codebook_entropy": self.codebook.detach(),
        }


def entropies(
    z: Float[Tensor, "n d"], keys: Float[Tensor, "k d"], bias: Float[Tensor, " k"] | None
) -> Entropies:
    """Return the entropies of the softmax of z.keys + bias."""
    per_sample, share = soft_use(z, keys, bias)
    return Entropies(per_sample, entropy_of(distributed.mean_over_ranks(share)))


def bit_entropies(
    z: Float[Tensor, "n d"], scale: float, temperature: float, group_bits: int
) -> Entropies:
    """Return the entropies of choosing signs, by the softmax of -|z - c|^2 / temperature.

    The codes c are all vectors of -scale and scale. Bits are independent given a vector, so that
    the entropy of its distribution is the exact sum over bits. The mean distribution has 2^d codes:
    its entropy is the sum over groups of bits, exact for one group, and else an upper bound.

    References:
        Zhao et al. 2024, arXiv:2406.07548, equations 7 to 11. Deviation: none.
    """
    logits = z * (4 * scale / temperature)  # of the probability that a bit is 1
    probabilities = torch.sigmoid(logits)
    per_bit = F.softplus(logits) - logits * probabilities
    codebook = z.new_zeros(())
    for group in torch.split(z, group_bits, dim=1):
        bits = group.shape[1]
        ids = torch.arange(2**bits, device=z.device)
        keys = to_signs(ids, bits, z.dtype) * (2 * scale / temperature)
        codebook = codebook + entropies(group, keys, None).codebook
    return Entropies(per_bit.sum(1).mean(), codebook)


def entropy_of(probabilities: Float[Tensor, " k"]) -> Float[Tensor, ""]:
    """Return the entropy in nats; codes of probability 0 have no gradient.

    Example:
        >>> round(entropy_of(torch.tensor([0.5, 0.5, 0.0])).item(), 4)
        0.6931
    """
    tiny = torch.finfo(probabilities.dtype).tiny
    return -(probabilities * probabilities.clamp(min=tiny).log()).sum()
