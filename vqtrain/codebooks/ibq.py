"""Index backpropagation quantization: the choice itself has a gradient, to all codes at once."""

from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.codebooks.base import Quantized
from vqtrain.codebooks.parts.entropy import entropies
from vqtrain.codebooks.parts.first_codes import draw_codes
from vqtrain.codebooks.parts.search import best
from vqtrain.codebooks.parts.softmax import soft_lookup
from vqtrain.codebooks.parts.table import TableCodebook
from vqtrain.codebooks.parts.vectors import to_grid, to_vectors
from vqtrain.ranges import above, at_least, checked


@final
class IBQ(TableCodebook):
    """Replaces each vector by the row of a table with the largest inner product.

    Forward gives that row; backward differentiates the softmax over all rows instead of the choice,
    so that every code moves at every step. Neither is held: both go over tiles of codes.

    Args:
        size: Number of codes, at least 1.
        dim: Channels of a code, at least 1.
        index_weight: Weight of the squared distance whose gradient moves the choice, >= 0.
        codebook_weight: Weight of the term that moves the chosen codes towards latents, >= 0.
        commitment_weight: Weight of the term that moves latents towards codes, >= 0.
        entropy_weight: Weight of the entropy loss, >= 0: low per-sample, high codebook entropy.
        entropy_temperature: Divides the inner products in that loss, above 0.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Shi et al. 2024, arXiv:2412.02692, section 3.2. Deviation: codes start from directions of
        the data.
    """

    initial_std = 0.3  # inner products then differ by about 1: a softmax with a gradient
    initial_whitening = False  # a table cannot cover as many directions as a latent has channels
    selection_rule = "largest inner product"

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        dim: Annotated[int, at_least(1)],
        index_weight: Annotated[float, at_least(0)],
        codebook_weight: Annotated[float, at_least(0)],
        commitment_weight: Annotated[float, at_least(0)],
        entropy_weight: Annotated[float, at_least(0)],
        entropy_temperature: Annotated[float, above(0)],
    ) -> None:
        super().__init__()
        self.size, self.dim = size, dim
        self.index_weight, self.codebook_weight = index_weight, codebook_weight
        self.commitment_weight = commitment_weight
        self.entropy_weight, self.entropy_temperature = entropy_weight, entropy_temperature
        self.vectors = nn.Parameter(torch.empty(size, dim).uniform_(-1 / size, 1 / size))

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Choose the row with the largest inner product."""
        flat = to_vectors(z)
        ids = best(flat.detach(), self.vectors.detach(), None)
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        chosen = F.embedding(ids, self.vectors)
        distance = F.mse_loss(flat, chosen.detach())
        metrics = {"distance": distance.detach()}
        if not self.training:
            loss = (self.index_weight + self.codebook_weight + self.commitment_weight) * distance
            z_q = to_grid(chosen, token_ids)
            return Quantized(z_q=z_q, token_ids=token_ids[:, None], loss=loss, metrics=metrics)
        soft = soft_lookup(flat, self.vectors, None, self.vectors.detach())
        quantized = chosen + (soft - soft.detach())
        loss = self.index_weight * F.mse_loss(quantized, flat)
        loss = loss + self.codebook_weight * F.mse_loss(chosen, flat.detach())
        loss = loss + self.commitment_weight * distance
        if self.entropy_weight:
            found = entropies(flat / self.entropy_temperature, self.vectors, None)
            loss = loss + self.entropy_weight * (found.per_sample - found.codebook)
            metrics |= found.metrics
        z_q = to_grid(quantized, token_ids)
        return Quantized(z_q=z_q, token_ids=token_ids[:, None], loss=loss, metrics=metrics)

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "b c *grid"]) -> None:
        """Take directions of the data as codes, all of one length: a long one would always win."""
        codes = F.normalize(draw_codes(to_vectors(z), self.size), dim=1)
        self.vectors.copy_(codes * to_vectors(z).norm(dim=1).mean())
