"""SimVQ: a frozen table seen through one learned linear map, so that all codes move together."""

from collections.abc import Mapping
from typing import Annotated, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.codebooks.base import Folded, Quantized
from vqtrain.codebooks.parts.search import nearest
from vqtrain.codebooks.parts.table import PLAIN, TableCodebook
from vqtrain.codebooks.parts.vectors import GRADIENTS, to_grid, to_vectors
from vqtrain.ranges import at_least, checked, one_of

# Share of the mean variance that every direction has at least, at the start.
RIDGE = 1e-4


@final
class SimVQ(TableCodebook):
    """Replaces each vector by the nearest row of a linear map of a random, frozen table.

    The gradient of each code that wins moves the map, and with it all others, so that codes do not
    die. The map is applied to the whole table at every call; ``Tokenizer.folded`` does it once.

    Args:
        size: Number of codes, at least 1.
        dim: Channels of a code, at least 1.
        codebook_weight: Weight of the term that moves codes towards latents, >= 0.
        commitment_weight: Weight of the term that moves latents towards codes, >= 0.
        gradient: How the decoder's gradient goes on to the latents: straight_through or rotation.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Zhu et al. 2024, arXiv:2411.02038, algorithm 1. Deviation: the map starts from the data,
        and ids are decoded through it, which the authors' code leaves out.
    """

    chooses_nearest = True
    selection_rule = "smallest Euclidean distance to the mapped table"
    frozen: Tensor

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        dim: Annotated[int, at_least(1)],
        codebook_weight: Annotated[float, at_least(0)],
        commitment_weight: Annotated[float, at_least(0)],
        gradient: Annotated[str, one_of(*GRADIENTS)],
    ) -> None:
        super().__init__()
        self.size, self.dim = size, dim
        self.codebook_weight, self.commitment_weight = codebook_weight, commitment_weight
        self.pass_gradient = GRADIENTS[gradient]
        self.register_buffer("frozen", torch.randn(size, dim) * dim**-0.5)
        self.map = nn.Linear(dim, dim)

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Choose the nearest code of each vector."""
        table = self.table()
        ids = nearest(to_vectors(z.detach()), table.detach())
        token_ids = ids.reshape(z.shape[0], *z.shape[2:])
        z_q = to_grid(F.embedding(ids, table), token_ids)
        distance = F.mse_loss(z, z_q.detach())
        loss = self.codebook_weight * F.mse_loss(z_q, z.detach())
        return Quantized(
            z_q=self.pass_gradient(z, z_q),
            token_ids=token_ids[:, None],
            loss=loss + self.commitment_weight * distance,
            metrics={"distance": distance.detach()},
        )

    def table(self) -> Float[Tensor, "k d"]:
        """Return the codes as they are compared and passed on."""
        return self.map(self.frozen)

    def stored_tables(self) -> list[Float[Tensor, "k d"]]:
        """Return the table behind the map."""
        return [self.frozen]

    @torch.no_grad()
    def folded(self, specification: Mapping[str, object]) -> Folded:
        """Return a ``vq`` whose table is that of this codebook."""
        arguments = cast(Mapping[str, object], specification["arguments"])
        return Folded(
            specification={"kind": "vq", "arguments": {**arguments, **PLAIN}},
            weights={
                "vectors": self.table(),
                "average_counts": torch.ones_like(self.frozen[:, 0]),
            },
        )

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "b c *grid"]) -> None:
        """Map the frozen normal vectors to the mean and the covariance of the data.

        From elsewhere, a few codes at the rim of the cloud would win all latents for long.
        """
        flat = to_vectors(z)
        mean = flat.mean(0)
        covariance = (flat - mean).T @ (flat - mean) / len(flat)
        # Channels may be as good as constant.
        ridge = RIDGE * covariance.diagonal().mean() + torch.finfo(z.dtype).tiny
        covariance += ridge * torch.eye(self.dim, dtype=z.dtype, device=z.device)
        self.map.weight.copy_(torch.linalg.cholesky_ex(covariance).L * self.dim**0.5)
        self.map.bias.copy_(mean)
