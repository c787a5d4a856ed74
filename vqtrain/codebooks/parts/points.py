"""A table of fixed points of the standard normal distribution, chosen by how likely they are."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.quasirandom import SobolEngine

from vqtrain.codebooks.base import Quantized
from vqtrain.codebooks.parts import normal
from vqtrain.codebooks.parts.search import best
from vqtrain.codebooks.parts.table import TableCodebook
from vqtrain.codebooks.parts.vectors import to_grid, to_vectors

# That of the authors' program, so that ids are those of their tokenizers.
SEED = 42


@final
class Points(TableCodebook):
    """Reads latents as normal distributions, and chooses the point that tells most for one.

    It is the c with the largest log N(c; mean, variance) - log N(c; 0, 1).

    Args:
        size: Points.
        dim: Channels of a point; latents have twice as many.
    """

    selection_rule = (
        "largest log-ratio of the densities of its normal distribution and the standard one"
    )

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size, self.dim = size, dim
        # Stored with the weights: ids must not depend on how another version scrambles.
        self.register_buffer("vectors", normal_points(size, dim))

    @property
    def in_channels(self) -> int:
        """A mean and a log-variance of each channel."""
        return 2 * self.dim

    def forward(self, z: Float[Tensor, "b d *grid"]) -> Quantized:
        """Choose the best point of each vector."""
        mean, log_variance = normal.split(z)
        precision = to_vectors((-log_variance.detach()).exp())
        # By channel -(c - mean)^2 / (2 variance) + c^2 / 2, without what is the same for all c: an
        # inner product of c and its square with numbers of the latent.
        queries = torch.cat([to_vectors(mean.detach()) * precision, (1 - precision) / 2], 1)
        ids = best(queries, torch.cat([self.vectors, self.vectors.square()], 1), None)
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        z_q = to_grid(self.vectors[ids], token_ids)
        # The gradient of a sample, mean + std * noise, for the noise that leads to the point.
        sample = mean + log_variance * ((z_q - mean) / 2).detach()
        bits = normal.bits_of_groups(normal.divergences(mean, log_variance), 1)
        return Quantized(
            z_q=z_q + (sample - sample.detach()),
            token_ids=token_ids[:, None],
            loss=z.new_zeros(()),
            metrics={
                "bits": bits.detach().mean(),
                "distance": F.mse_loss(mean.detach(), z_q),
            },
        )


def normal_points(size: int, dim: int) -> Float[Tensor, "size dim"]:
    """Spread points evenly by the standard normal distribution.

    They are those of a scrambled Sobol sequence, through the quantile function of each channel.
    """
    sequence = SobolEngine(dim, scramble=True, seed=SEED)  # type: ignore[no-untyped-call]  # torch's
    cells = sequence.draw(size, dtype=torch.float64)
    # The middle of a cell, as 0 is the lower end of the first one and has no quantile.
    return torch.special.ndtri(cells + 2.0 ** -(SobolEngine.MAXBIT + 1)).float()
