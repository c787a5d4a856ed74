"""Vector quantization with a codebook that follows moving averages of the latents it wins."""

from collections.abc import Mapping
from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vqtrain.codebooks.base import Quantized
from vqtrain.codebooks.parts.first_codes import first_codes
from vqtrain.codebooks.parts.noise import NoiseSource
from vqtrain.codebooks.parts.step_state import Counts, SampleBuffer
from vqtrain.codebooks.parts.table import (
    TableCodebook,
    choose,
    dead_codes,
    selection_rule,
    with_far_codes,
)
from vqtrain.codebooks.parts.vectors import GRADIENTS, to_grid, to_vectors
from vqtrain.errors import require
from vqtrain.ranges import at_least, checked, one_of, within

# Keeps the division finite where the average count of a code goes to zero.
EPSILON = 1e-5


@final
class EMA(TableCodebook):
    """Replaces each vector by the nearest code, and moves codes to the mean of what they win.

    Counts and sums of a step are reduced over ranks and enter moving averages; a code is its
    average sum divided by its average count. Codes that hardly ever win are put onto a vector of
    the current step, together with their averages, so that the next step does not undo it.

    Args:
        size: Number of codes, at least 1.
        dim: Channels of a code, at least 1.
        decay: Share of the averages that one step keeps, in [0, 1).
        commitment_weight: Weight of the mean squared distance between latents and codes, >= 0.
        l2_normalize: Compare and pass on vectors of unit length, so that only directions count.
        gradient: How the decoder's gradient goes on to the latents: straight_through or rotation.
        kmeans_iterations: The first codes are means of clusters of latents, found in so many
            iterations; with 0 they are latents.
        restart_below: A code restarts when its average count is below this share of the mean over
            all codes, in [0, 1); 0 turns restarts off.
        sampling_temperature: In training, codes are sampled from softmax(-d^2 / (T dim)) for this T
            and distances d; 0 takes the nearest.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        van den Oord et al. 2017, arXiv:1711.00937, appendix A.1; Laplace smoothing and restarts as
        in Dhariwal et al. 2020, arXiv:2005.00341. Deviation: the threshold is relative to uniform
        use, and a restarted code gets the mean count instead of 1.
    """

    chooses_nearest = True
    average_counts: Tensor
    average_sums: Tensor

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        dim: Annotated[int, at_least(1)],
        decay: Annotated[float, within(0, 1, below_high=True)],
        commitment_weight: Annotated[float, at_least(0)],
        l2_normalize: bool,
        gradient: Annotated[str, one_of(*GRADIENTS)],
        kmeans_iterations: Annotated[int, at_least(0)],
        restart_below: Annotated[float, within(0, 1, below_high=True)],
        sampling_temperature: Annotated[float, at_least(0)],
    ) -> None:
        super().__init__()
        self.size, self.dim, self.decay = size, dim, decay
        self.commitment_weight, self.l2_normalize = commitment_weight, l2_normalize
        self.pass_gradient = GRADIENTS[gradient]
        self.kmeans_iterations, self.restart_below = kmeans_iterations, restart_below
        self.sampling_temperature = sampling_temperature
        self.selection_rule = selection_rule(l2_normalize)
        vectors = torch.randn(size, dim)
        if l2_normalize:
            vectors = F.normalize(vectors, dim=1)
        self.register_buffer("vectors", vectors)
        self.register_buffer("average_counts", torch.ones(size))
        self.register_buffer("average_sums", vectors.clone())
        self.counts, self.sums = Counts(size), Counts(size, dim)
        self.samples, self.noise = SampleBuffer(), NoiseSource()

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Choose the nearest code of each vector; in train mode count what it won."""
        if self.l2_normalize:
            z = F.normalize(z, dim=1)
        flat = to_vectors(z.detach())
        samples = self.training and self.sampling_temperature > 0
        noise = self.noise.next_call(z.shape[0]) if samples else None
        ids = choose(flat, self.vectors, self.sampling_temperature, noise)
        if self.training:
            self.counts.count(ids)
            self.sums.add(ids, flat)
            if self.restart_below:
                self.samples.add(flat)
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        z_q = to_grid(self.vectors[ids], token_ids)
        distance = F.mse_loss(z, z_q)
        return Quantized(
            z_q=self.pass_gradient(z, z_q),
            token_ids=token_ids[:, None],
            loss=self.commitment_weight * distance,
            metrics={"distance": distance.detach()},
        )

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "b c *grid"]) -> None:
        """Take vectors or means of the data as codes, each with an average count of one."""
        if self.l2_normalize:
            z = F.normalize(z, dim=1)
        codes = first_codes(to_vectors(z), self.size, self.kmeans_iterations)
        self.average_counts.fill_(1)
        self.average_sums.copy_(codes)
        self.vectors.copy_(F.normalize(codes, dim=1) if self.l2_normalize else codes)

    @torch.no_grad()
    def grow(self, given: Mapping[str, Tensor]) -> None:
        """Take over fewer codes; the others are far away until they restart."""
        require(self.restart_below > 0, "restart_below=0 never brings the new codes into use")
        self.vectors.copy_(with_far_codes(given["vectors"], self.size))
        self.average_sums.copy_(with_far_codes(given["average_sums"], self.size))
        self.average_counts.zero_()
        self.average_counts[: len(given["vectors"])] = given["average_counts"]

    @torch.no_grad()
    def update(self, step: int) -> Mapping[str, Tensor]:
        """Move the averages and the codes, and restart codes that hardly ever win."""
        del step  # no schedule here
        self.average_counts.lerp_(self.counts.take(), 1 - self.decay)
        self.average_sums.lerp_(self.sums.take(), 1 - self.decay)
        metrics = {}
        if self.restart_below:
            vectors = self.samples.take(self.size)
            codes, restarts = dead_codes(self.average_counts, self.restart_below, len(vectors))
            mean_count = self.average_counts.mean()
            # The averages restart with the code, as if it had won this vector at the mean rate:
            # otherwise the next update would pull the code straight back.
            self.average_counts[codes] = torch.where(
                restarts, mean_count, self.average_counts[codes]
            )
            self.average_sums[codes] = torch.where(
                restarts[:, None], vectors * mean_count, self.average_sums[codes]
            )
            metrics["restarts"] = restarts.sum()
        total = self.average_counts.sum()
        smoothed = (self.average_counts + EPSILON) / (total + self.size * EPSILON) * total
        torch.div(self.average_sums, smoothed[:, None], out=self.vectors)
        if self.l2_normalize:
            self.vectors.copy_(F.normalize(self.vectors, dim=1))
        return metrics
