"""Vector quantization with a codebook that is trained by gradient, as in the first VQ-VAE."""

from collections.abc import Mapping
from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.codebooks.base import Quantized
from vqtrain.codebooks.parts.entropy import entropies
from vqtrain.codebooks.parts.first_codes import first_codes
from vqtrain.codebooks.parts.noise import NoiseSource
from vqtrain.codebooks.parts.search import nearness
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
from vqtrain.ranges import above, at_least, checked, one_of, within


@final
class VQ(TableCodebook):
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
        gradient: How the decoder's gradient goes on to the latents: straight_through or rotation.
        kmeans_iterations: The first codes are means of clusters of latents, found in so many
            iterations; with 0 they are latents.
        decay: Share of the average counts that one step keeps, in [0, 1); they decide on restarts.
        restart_below: A code is put onto a latent of the step when its average count is below this
            share of the mean over all codes, in [0, 1); 0 turns restarts off.
        entropy_weight: Weight of the entropy loss, >= 0: low per-sample, high codebook entropy.
        entropy_temperature: Squared distance by which a code gets less probable by a factor of e
            in that loss, above 0.
        sampling_temperature: In training, codes are sampled from softmax(-d^2 / (T dim)) for this T
            and distances d; 0 takes the nearest.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        van den Oord et al. 2017, arXiv:1711.00937, equation 3. Normalized lookup: Yu et al. 2021,
        arXiv:2110.04627, section 3.1. Deviation: codes start from latents of the data.
    """

    chooses_nearest = True
    average_counts: Tensor

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        dim: Annotated[int, at_least(1)],
        codebook_weight: Annotated[float, at_least(0)],
        commitment_weight: Annotated[float, at_least(0)],
        l2_normalize: bool,
        gradient: Annotated[str, one_of(*GRADIENTS)],
        kmeans_iterations: Annotated[int, at_least(0)],
        decay: Annotated[float, within(0, 1, below_high=True)],
        restart_below: Annotated[float, within(0, 1, below_high=True)],
        entropy_weight: Annotated[float, at_least(0)],
        entropy_temperature: Annotated[float, above(0)],
        sampling_temperature: Annotated[float, at_least(0)],
    ) -> None:
        super().__init__()
        self.size, self.dim, self.decay = size, dim, decay
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.l2_normalize, self.selection_rule = l2_normalize, selection_rule(l2_normalize)
        self.pass_gradient = GRADIENTS[gradient]
        self.kmeans_iterations, self.restart_below = kmeans_iterations, restart_below
        self.entropy_weight, self.entropy_temperature = entropy_weight, entropy_temperature
        self.sampling_temperature = sampling_temperature
        self.vectors = nn.Parameter(torch.empty(size, dim).uniform_(-1 / size, 1 / size))
        self.register_buffer("average_counts", torch.ones(size))
        self.counts, self.samples, self.noise = Counts(size), SampleBuffer(), NoiseSource()

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Choose the nearest code of each vector; in train mode count what it won."""
        if self.l2_normalize:
            z = F.normalize(z, dim=1)
        table = self.table()
        flat = to_vectors(z)
        samples = self.training and self.sampling_temperature > 0
        noise = self.noise.next_call(z.shape[0]) if samples else None
        ids = choose(flat.detach(), table.detach(), self.sampling_temperature, noise)
        if self.training and self.restart_below:
            self.counts.count(ids)
            self.samples.add(flat)
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        z_q = to_grid(F.embedding(ids, table), token_ids)
        distance = F.mse_loss(z, z_q.detach())
        loss = self.codebook_weight * F.mse_loss(z_q, z.detach())
        loss = loss + self.commitment_weight * distance
        metrics = {"distance": distance.detach()}
        if self.training and self.entropy_weight:
            # -|z - e|^2 / temperature, but for |z|^2, which the softmax does not see.
            scale = 2 / self.entropy_temperature
            found = entropies(flat * scale, table, nearness(table) * scale)
            loss = loss + self.entropy_weight * (found.per_sample - found.codebook)
            metrics |= found.metrics
        return Quantized(
            z_q=self.pass_gradient(z, z_q),
            token_ids=token_ids[:, None],
            loss=loss,
            metrics=metrics,
        )

    def table(self) -> Float[Tensor, "k d"]:
        """Return the codes as they are compared and passed on."""
        return F.normalize(self.vectors, dim=1) if self.l2_normalize else self.vectors

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "b c *grid"]) -> None:
        """Take vectors or means of the data as codes."""
        if self.l2_normalize:
            z = F.normalize(z, dim=1)
        self.vectors.copy_(first_codes(to_vectors(z), self.size, self.kmeans_iterations))

    @torch.no_grad()
    def grow(self, given: Mapping[str, Tensor]) -> None:
        """Take over fewer codes; the others are far away until they restart."""
        require(not self.l2_normalize, "l2_normalize=true leaves no direction far from all latents")
        require(self.restart_below > 0, "restart_below=0 never brings the new codes into use")
        self.vectors.copy_(with_far_codes(given["vectors"], self.size))
        self.average_counts.zero_()
        self.average_counts[: len(given["vectors"])] = given["average_counts"]

    @torch.no_grad()
    def update(self, step: int) -> Mapping[str, Tensor]:
        """Restart codes that hardly ever win; the optimizer moves the others."""
        del step  # no schedule here
        metrics = {}
        if self.restart_below:
            self.average_counts.lerp_(self.counts.take(), 1 - self.decay)
            vectors = self.samples.take(self.size)
            codes, restarts = dead_codes(self.average_counts, self.restart_below, len(vectors))
            self.vectors[codes] = torch.where(restarts[:, None], vectors, self.vectors[codes])
            # Counted as if it had won at the mean rate, so that it has time to win.
            self.average_counts[codes] = torch.where(
                restarts, self.average_counts.mean(), self.average_counts[codes]
            )
            metrics["restarts"] = restarts.sum()
        return metrics
