"""Gaussian Quant: tokens of a Gaussian autoencoder from fixed points, without any training."""

from typing import Annotated, final

from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.codebooks.parts.lookup import ids_of
from vqtrain.codebooks.parts.points import Points
from vqtrain.errors import require
from vqtrain.ranges import at_least, checked


@final
class Gaussian(Codebook):
    """Reads latents as means and log-variances, as ``kl``, and passes on the most telling points.

    It takes the place of the ``kl`` of a trained tokenizer, whose other weights stay. Points are
    as good as samples where the divergence of a group is near log2(size) bits: train with
    ``codebook.target_bits``. Nothing of it trains, and its loss is zero.

    Args:
        size: Points of the standard normal distribution, at least 1; all groups share them.
        dim: Channels of ``z_q``, at least 1; latents have twice as many.
        num_codebooks: Groups of channels with an id each, a divisor of ``dim``. Group j of n has
            the channels j, j + n, j + 2n and so on.

    Raises:
        ConfigError: If an argument is out of range.

    References:
        Xu et al. 2025, arXiv:2512.06609, section 3. Deviation: the points are stored.
    """

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        dim: Annotated[int, at_least(1)],
        num_codebooks: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        require(
            dim % num_codebooks == 0,
            f"dim must be a multiple of num_codebooks={num_codebooks}, got {dim}",
        )
        self.size, self.dim, self.num_codebooks = size, dim, num_codebooks
        self.points = Points(size, dim // num_codebooks)
        self.selection_rule = self.points.selection_rule
        self.id_order = self.points.id_order
        if num_codebooks > 1:
            n = num_codebooks
            self.id_order += f"; id j of {n}, from 0, is of the channels j, j + {n}, j + {2 * n}..."

    @property
    def in_channels(self) -> int:
        """A mean and a log-variance of each channel."""
        return 2 * self.dim

    def forward(self, z: Float[Tensor, "b d *grid"]) -> Quantized:
        """Choose a point for each group, as if groups were an axis of the grid."""
        groups = rearrange(z, "b (g n) ... -> b g n ...", n=self.num_codebooks)
        quantized: Quantized = self.points(groups)
        return Quantized(
            z_q=quantized.z_q.flatten(1, 2),
            token_ids=quantized.token_ids[:, 0],
            loss=quantized.loss,
            metrics=quantized.metrics,
        )

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Look the points up."""
        return self.points.decode(ids_of(token_ids, self)[:, None]).flatten(1, 2)
