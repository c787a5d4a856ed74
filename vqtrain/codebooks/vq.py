"""Vector quantization with a codebook that is trained by gradient, as in the first VQ-VAE."""

from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.errors import ConfigError
from vqtrain.layers.statistics import draw_codes
from vqtrain.ops.search import nearest
from vqtrain.ops.vectors import straight_through, to_grid, to_vectors


@final
class VQ(Codebook):
    """Replaces each vector by the nearest row of a table, and trains the table by gradient.

    The loss is ``codebook_weight * |sg(z) - e|^2 + commitment_weight * |z - sg(e)|^2``, each a mean
    per element. The first VQGAN code had the two weights exchanged; to reproduce a model that was
    trained with it set ``codebook_weight=0.25 commitment_weight=1``.

    Args:
        size: Number of codes, at least 1.
        dim: Channels of a code, at least 1.
        codebook_weight: Weight of the term that moves codes towards latents, >= 0.
        commitment_weight: Weight of the term that moves latents towards codes, >= 0.
        l2_normalize: Compare and pass on vectors of unit length, so that only directions count.

    Raises:
        ConfigError: If a size or a weight is out of range.

    References:
        van den Oord et al. 2017, arXiv:1711.00937, equation 3. Normalized lookup: Yu et al. 2021,
        arXiv:2110.04627, section 3.1. Deviation: codes start from latents of the data.
    """

    num_codebooks = 1
    id_order = "row of the table"

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        codebook_weight: float,
        commitment_weight: float,
        l2_normalize: bool,
    ) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ConfigError(f"size and dim must be at least 1, got size={size}, dim={dim}")
        if min(codebook_weight, commitment_weight) < 0:
            raise ConfigError(
                "codebook_weight and commitment_weight must not be negative, got "
                f"{codebook_weight} and {commitment_weight}"
            )
        self.size, self.dim = size, dim
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.l2_normalize = l2_normalize
        self.selection_rule = (
            "largest cosine similarity" if l2_normalize else "smallest Euclidean distance"
        )
        self.vectors = nn.Parameter(torch.empty(size, dim).uniform_(-1 / size, 1 / size))

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Choose the nearest code of each vector."""
        if self.l2_normalize:
            z = F.normalize(z, dim=1)
        table = self.table()
        ids = nearest(to_vectors(z.detach()), table.detach())
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        z_q = to_grid(table[ids], token_ids)
        distance = F.mse_loss(z, z_q.detach())
        loss = self.codebook_weight * F.mse_loss(z_q, z.detach())
        loss = loss + self.commitment_weight * distance
        return Quantized(
            z_q=straight_through(z, z_q),
            token_ids=token_ids[:, None],
            loss=loss,
            metrics={"distance": distance.detach()},
        )

    def decode(self, token_ids: Int64[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Look rows of the table up."""
        ids = token_ids[:, 0]
        return to_grid(self.table()[ids.flatten()], ids)

    def table(self) -> Float[Tensor, "k d"]:
        """Return the codes as they are compared and passed on."""
        return F.normalize(self.vectors, dim=1) if self.l2_normalize else self.vectors

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "b c *grid"]) -> None:
        """Take vectors of the data as codes."""
        self.vectors.copy_(draw_codes(to_vectors(z), self.size))

    def update(self, step: int) -> None:
        """Do nothing: the optimizer moves the codes."""
