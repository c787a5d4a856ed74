"""Vector quantization with a codebook that follows moving averages of the latents it wins."""

from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.errors import ConfigError
from vqtrain.layers.statistics import CodeStatistics, draw_codes
from vqtrain.ops.search import nearest
from vqtrain.ops.vectors import straight_through, to_grid, to_vectors

# Keeps the division finite where the average count of a code goes to zero.
EPSILON = 1e-5


@final
class EMA(Codebook):
    """Replaces each vector by the nearest code, and moves codes to the mean of what they win.

    Counts and sums of a step are reduced over ranks and enter moving averages; a code is its
    average sum divided by its average count. Codes that hardly ever win are put onto a vector of
    the current step, together with their averages, so that the next step does not undo it.

    Args:
        size: Number of codes, at least 1.
        dim: Channels of a code, at least 1.
        decay: Share of the averages that one step keeps, in [0, 1).
        commitment_weight: Weight of the mean squared distance between latents and codes, >= 0.
        restart_below: A code restarts when its average count is below this share of the mean over
            all codes, in [0, 1); 0 turns restarts off.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        van den Oord et al. 2017, arXiv:1711.00937, appendix A.1; Laplace smoothing and restarts as
        in Dhariwal et al. 2020, arXiv:2005.00341. Deviation: the threshold is relative to uniform
        use, and a restarted code gets the mean count instead of 1.
    """

    num_codebooks = 1
    id_order = "row of the table"
    selection_rule = "smallest Euclidean distance"
    vectors: Tensor
    average_counts: Tensor
    average_sums: Tensor

    def __init__(
        self,
        *,
        size: int,
        dim: int,
        decay: float,
        commitment_weight: float,
        restart_below: float,
    ) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ConfigError(f"size and dim must be at least 1, got size={size}, dim={dim}")
        if not 0 <= decay < 1:
            raise ConfigError(f"decay must be in [0, 1), got {decay}")
        if commitment_weight < 0:
            raise ConfigError(f"commitment_weight must not be negative, got {commitment_weight}")
        if not 0 <= restart_below < 1:
            raise ConfigError(f"restart_below must be in [0, 1), got {restart_below}")
        self.size, self.dim, self.decay = size, dim, decay
        self.commitment_weight, self.restart_below = commitment_weight, restart_below
        vectors = torch.randn(size, dim)
        self.register_buffer("vectors", vectors)
        self.register_buffer("average_counts", torch.ones(size))
        self.register_buffer("average_sums", vectors.clone())
        self.statistics = CodeStatistics(size=size, dim=dim)

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Choose the nearest code of each vector; in train mode count what it won."""
        flat = to_vectors(z.detach())
        ids = nearest(flat, self.vectors)
        if self.training:
            self.statistics.add(flat, ids)
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        z_q = to_grid(self.vectors[ids], token_ids)
        distance = F.mse_loss(z, z_q)
        return Quantized(
            z_q=straight_through(z, z_q),
            token_ids=token_ids[:, None],
            loss=self.commitment_weight * distance,
            metrics={"distance": distance.detach()},
        )

    def decode(self, token_ids: Int64[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Look rows of the table up."""
        ids = token_ids[:, 0]
        return to_grid(self.vectors[ids.flatten()], ids)

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "b c *grid"]) -> None:
        """Take vectors of the data as codes, each with an average count of one."""
        self.vectors.copy_(draw_codes(to_vectors(z), self.size))
        self.average_counts.fill_(1)
        self.average_sums.copy_(self.vectors)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages and the codes, and restart codes that hardly ever win."""
        del step  # no schedule here
        counts, sums, candidates = self.statistics.collect()
        self.average_counts.lerp_(counts, 1 - self.decay)
        self.average_sums.lerp_(sums, 1 - self.decay)
        mean_count = self.average_counts.mean()
        is_dead = self.average_counts < self.restart_below * mean_count
        # The averages restart with the code, as if it had won this vector at the mean rate:
        # otherwise the next update would pull the code straight back.
        self.average_counts.copy_(torch.where(is_dead, mean_count, self.average_counts))
        self.average_sums.copy_(
            torch.where(is_dead[:, None], candidates * mean_count, self.average_sums)
        )
        total = self.average_counts.sum()
        smoothed = (self.average_counts + EPSILON) / (total + self.size * EPSILON) * total
        self.vectors.copy_(self.average_sums / smoothed[:, None])
