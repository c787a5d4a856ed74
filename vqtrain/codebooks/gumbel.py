"""The relaxed codebook of the DALL-E dVAE: in training, a mixture of codes that grows sharper."""

import math
from collections.abc import Mapping
from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.codebooks.base import Quantized
from vqtrain.codebooks.parts.noise import NoiseSource
from vqtrain.codebooks.parts.search import best
from vqtrain.codebooks.parts.softmax import soft_lookup, soft_use
from vqtrain.codebooks.parts.table import TableCodebook
from vqtrain.codebooks.parts.vectors import to_grid, to_vectors
from vqtrain.ranges import above, at_least, checked


@final
class Gumbel(TableCodebook):
    """Scores all codes by a linear layer, and passes on a mixture of them by a noisy softmax.

    The temperature of the softmax falls along a cosine over the first steps, so that the mixture
    comes close to one code; in eval mode it is the code with the largest score. The loss keeps the
    distributions over codes close to uniform.

    Args:
        size: Number of codes, at least 1.
        dim: Channels of codes, at least 1.
        latent_dim: Channels of the latents that are scored, at least 1; None for ``dim``.
        kl_weight: Weight of the divergence of each vector's distribution from the uniform one, in
            nats, >= 0.
        temperature: At step 0, above 0.
        final_temperature: From ``temperature_steps`` on, above 0.
        temperature_steps: Steps over which it changes, >= 0.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Ramesh et al. 2021, arXiv:2102.12092, section 2.1 and appendix A.2; Jang et al. 2016,
        arXiv:1611.01144. Deviation: the divergence is a mean over positions, and its weight stays.
    """

    initial_std = 1.0
    selection_rule = "largest score of a linear layer"
    learns_from_decoder = True
    temperature: Tensor

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        dim: Annotated[int, at_least(1)],
        latent_dim: Annotated[int, at_least(1)] | None = None,
        kl_weight: Annotated[float, at_least(0)],
        temperature: Annotated[float, above(0)],
        final_temperature: Annotated[float, above(0)],
        temperature_steps: Annotated[int, at_least(0)],
    ) -> None:
        super().__init__()
        self.size, self.dim, self.kl_weight = size, dim, kl_weight
        self.first_temperature, self.final_temperature = temperature, final_temperature
        self.temperature_steps = temperature_steps
        self.scores = nn.Linear(latent_dim or dim, size)
        self.vectors = nn.Parameter(torch.randn(size, dim))
        self.register_buffer("temperature", torch.tensor(self.temperature_at(0)))
        self.noise = NoiseSource()

    @property
    def in_channels(self) -> int:
        """Channels of the latents that are scored."""
        return self.scores.in_features

    def temperature_at(self, step: int) -> float:
        """Return the temperature of a step."""
        done = min(1.0, step / self.temperature_steps) if self.temperature_steps else 1.0
        rest = (1 + math.cos(math.pi * done)) / 2
        return self.final_temperature + (self.first_temperature - self.final_temperature) * rest

    def forward(self, z: Float[Tensor, "b d *grid"]) -> Quantized:
        """Mix codes in training, and choose one in eval mode."""
        flat = to_vectors(z)
        weight, bias = self.scores.weight, self.scores.bias
        ids = best(flat.detach(), weight.detach(), bias.detach())
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        chosen = self.vectors[ids]
        metrics = {}
        if self.in_channels == self.dim:
            metrics["distance"] = F.mse_loss(flat.detach(), chosen.detach())
        if not self.training:
            return Quantized(
                z_q=to_grid(chosen, token_ids),
                token_ids=token_ids[:, None],
                loss=z.new_zeros(()),
                metrics=metrics,
            )
        noise, t = self.noise.next_call(z.shape[0]), self.temperature
        mixture = soft_lookup(
            flat / t,
            weight,
            bias / t,
            self.vectors,
            lambda scores, start, _: scores.add_(noise.gumbel(scores, start).div_(t)),
        )
        entropy, _ = soft_use(flat, weight, bias)
        divergence = math.log(self.size) - entropy
        return Quantized(
            z_q=to_grid(mixture, token_ids),
            token_ids=token_ids[:, None],
            loss=self.kl_weight * divergence,
            metrics={**metrics, "divergence": divergence.detach()},
        )

    @torch.no_grad()
    def update(self, step: int) -> Mapping[str, Tensor]:
        """Set the temperature of the next step."""
        used = self.temperature.clone()
        self.temperature.fill_(self.temperature_at(step + 1))
        return {"temperature": used}
