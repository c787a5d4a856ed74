"""Product quantization: groups of channels, each with a codebook of its own."""

from collections.abc import Mapping
from typing import Annotated, cast, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from vqtrain.codebooks.base import Codebook, Folded, Quantized
from vqtrain.codebooks.parts.inner import build_inner, fold_inner, mean_metrics
from vqtrain.codebooks.parts.lookup import ids_of
from vqtrain.ranges import at_least, checked


@final
class Grouped(Codebook):
    """Splits the channels into groups and quantizes each by itself; the loss is their mean.

    Args:
        size: Ids of each group.
        num_codebooks: Groups, at least 1.
        inner: The codebook of a group: ``kind`` and its arguments, with ``size: null``. Its ``dim``
            is that of one group.

    Raises:
        ConfigError: If the inner codebook cannot be built, has no ids at each position.

    References:
        Jegou et al. 2011, doi:10.1109/TPAMI.2010.57; for tokenizers Ma et al. 2025,
        arXiv:2502.20321, section 3.2. Deviation: none.
    """

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        num_codebooks: Annotated[int, at_least(1)],
        inner: Mapping[str, object],
    ) -> None:
        super().__init__()
        built = [build_inner(inner, size) for _ in range(num_codebooks)]
        first = built[0]
        self.groups = nn.ModuleList(built)
        self.size, self.dim = first.size, num_codebooks * first.dim
        self.num_codebooks = num_codebooks * first.num_codebooks
        self.initial_std = first.initial_std
        self.initial_whitening = first.initial_whitening
        self.id_order = f"by group of channels, from the first; each: {first.id_order}"
        self.selection_rule = f"in each group of channels by itself: {first.selection_rule}"

    def forward(self, z: Float[Tensor, "b c *grid"]) -> Quantized:
        """Quantize group by group."""
        parts = z.chunk(len(self.groups), dim=1)
        found = [cast(Quantized, group(z)) for group, z in zip(self.groups, parts, strict=True)]
        return Quantized(
            z_q=torch.cat([quantized.z_q for quantized in found], dim=1),
            token_ids=torch.cat([quantized.token_ids for quantized in found], dim=1),
            loss=torch.stack([quantized.loss for quantized in found]).mean(),
            metrics=mean_metrics([quantized.metrics for quantized in found]),
        )

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c *grid"]:
        """Put the codes of all groups side by side."""
        ids = ids_of(token_ids, self).chunk(len(self.groups), dim=1)
        groups = zip(self.groups, ids, strict=True)
        return torch.cat([cast(Codebook, group).decode(part) for group, part in groups], dim=1)

    def folded(self, specification: Mapping[str, object]) -> Folded:
        """Fold the codebook of each group."""
        return fold_inner(self, specification)

    def initialize(self, z: Float[Tensor, "b c *grid"]) -> None:
        """Let each group start from its channels."""
        for group, part in zip(self.groups, z.chunk(len(self.groups), dim=1), strict=True):
            cast(Codebook, group).initialize(part)

    def update(self, step: int) -> Mapping[str, Tensor]:
        """Update the codebook of each group."""
        return mean_metrics([cast(Codebook, group).update(step) for group in self.groups])
