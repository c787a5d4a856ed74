"""Multi-scale residual quantization: coarse grids first, finer ones for what they leave."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, final

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.codebooks.base import Codebook, Folded, Quantized
from vqtrain.codebooks.parts.inner import build_inner, fold_inner, mean_metrics
from vqtrain.codebooks.parts.lookup import ids_of
from vqtrain.codebooks.parts.vectors import straight_through
from vqtrain.errors import require
from vqtrain.ranges import at_least, checked, within


@final
class MultiScale(Codebook):
    """Quantizes latents on ever finer square grids, each time what the coarser ones have left.

    The rest is averaged down to a scale, quantized, brought up again by bicubic interpolation and
    smoothed by a convolution, of which neighboring scales share a few. All scales use one codebook;
    the ids of all scales, coarse to fine, are one list.

    Args:
        size: Number of ids.
        scales: Sides of the grids, growing; the last one is the side of the encoder's grid.
        num_convolutions: Convolutions that the scales share, at least 1.
        convolution_share: How much of a convolution is mixed in, in [0, 1].
        convolution_weight: Weight of the squared distance of the sums of all scales from the
            latents, as a mean over scales, which trains the convolutions, >= 0.
        inner: The codebook: ``kind`` and its arguments, with ``size: null``; one id a position.

    Raises:
        ConfigError: If an argument is out of range or the inner codebook does not fit.

    References:
        Tian et al. 2024, arXiv:2404.02905, section 3.2 and algorithm 1. Deviation: codes are
        learned as the inner codebook does it, from the rests of each scale, not from the sums; and
        all numbers of convolutions are shared out as its code shares four.
    """

    num_codebooks = 1

    @checked
    def __init__(
        self,
        *,
        size: Annotated[int, at_least(1)],
        scales: Sequence[int],
        num_convolutions: Annotated[int, at_least(1)],
        convolution_share: Annotated[float, within(0, 1)],
        convolution_weight: Annotated[float, at_least(0)],
        inner: Mapping[str, object],
    ) -> None:
        super().__init__()
        growing = all(a < b for a, b in pairwise(scales))
        require(
            bool(scales) and scales[0] >= 1 and growing,
            f"scales must be growing sides of grids, such as [1,2,4], got {list(scales)}",
        )
        self.codebook = build_inner(inner, size, calls=len(scales))
        require(
            self.codebook.num_codebooks == 1,
            f"inner.kind={inner['kind']} has several ids at each position",
        )
        require(
            not self.codebook.learns_from_decoder,
            f"inner.kind={inner['kind']} learns from the decoder alone, whose gradient this "
            "codebook passes straight through to the encoder",
        )
        self.scales = tuple(scales)
        self.token_grids = tuple((scale, scale) for scale in scales)
        self.size, self.dim = self.codebook.size, self.codebook.dim
        self.initial_std = self.codebook.initial_std
        self.initial_whitening = self.codebook.initial_whitening
        self.share, self.weight = convolution_share, convolution_weight
        self.convolution_of = share_out(num_convolutions, len(self.scales))
        used = len(set(self.convolution_of))
        require(
            used == num_convolutions,
            f"num_convolutions={num_convolutions} are too many for {len(self.scales)} scales, of "
            f"which {used} would be used",
        )
        self.convolutions = nn.ModuleList(
            nn.Conv2d(self.dim, self.dim, 3, padding=1) for _ in range(num_convolutions)
        )
        self.id_order = (
            f"scales {list(self.scales)} after each other, each row by row; "
            f"{self.codebook.id_order}"
        )
        self.selection_rule = (
            f"of the rest, averaged down, scale after scale: {self.codebook.selection_rule}"
        )

    def tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Return the number of ids of all scales, for the one grid that the last scale is."""
        side = self.scales[-1]
        require(
            grid == (side, side),
            f"scales={list(self.scales)} need a square 2-D grid of {side} x {side}, got "
            f"{' x '.join(map(str, grid))}: use other scales or samples of another size",
        )
        return (sum(scale**2 for scale in self.scales),)

    def forward(self, z: Float[Tensor, "b c h w"]) -> Quantized:
        """Quantize scale after scale."""
        self.tokens(tuple(z.shape[2:]))
        found: list[Quantized] = []
        errors: list[Tensor] = []
        # In the layout of decode, whatever that of the latents is: others round differently.
        total = torch.zeros_like(z, memory_format=torch.contiguous_format)
        for number, scale in enumerate(self.scales):
            quantized = self.codebook(F.adaptive_avg_pool2d(z - total.detach(), scale))
            found.append(quantized)
            total = total.detach() + self.brought_up(quantized.z_q.detach(), number)
            errors.append(F.mse_loss(total, z.detach()))
        losses = torch.stack([quantized.loss for quantized in found])
        return Quantized(
            z_q=straight_through(z, total),
            token_ids=torch.cat([quantized.token_ids.flatten(2) for quantized in found], dim=2),
            loss=losses.mean() + self.weight * torch.stack(errors).mean(),
            metrics={
                **mean_metrics([quantized.metrics for quantized in found]),
                "distance": errors[-1].detach(),
            },
        )

    def brought_up(self, z_q: Float[Tensor, "b c s s"], number: int) -> Float[Tensor, "b c h w"]:
        """Bring the codes of a scale to the size of the last one, and smooth them."""
        # One memory layout in forward and decode: convolutions of another one round differently.
        up = z_q.clone(memory_format=torch.contiguous_format)
        if number < len(self.scales) - 1:
            up = F.interpolate(up, self.scales[-1], mode="bicubic")
        smooth = self.convolutions[self.convolution_of[number]](up)
        return torch.lerp(up, smooth, self.share)

    def decode(self, token_ids: Shaped[Tensor, "b k *tokens"]) -> Float[Tensor, "b c h w"]:
        """Add up the codes of all scales."""
        own = ids_of(token_ids, self)
        parts = torch.split(own, [scale**2 for scale in self.scales], dim=2)
        total: Tensor | None = None
        for number, (scale, ids) in enumerate(zip(self.scales, parts, strict=True)):
            z_q = self.codebook.decode(rearrange(ids, "b k (h w) -> b k h w", h=scale))
            up = self.brought_up(z_q, number)
            total = up if total is None else total + up
        assert total is not None, "there is at least one scale"
        return total

    def folded(self, specification: Mapping[str, object]) -> Folded:
        """Fold the codebook of all scales."""
        return fold_inner(self, specification)

    @torch.no_grad()
    def initialize(self, z: Float[Tensor, "b c h w"]) -> None:
        """Start from latents at the finest scale."""
        self.codebook.initialize(z)

    def update(self, step: int) -> Mapping[str, Tensor]:
        """Update the codebook."""
        return self.codebook.update(step)


def share_out(num_convolutions: int, num_scales: int) -> list[int]:
    """Give each scale the convolution nearest to it, of two the later one, from coarse to fine.

    Example:
        >>> share_out(4, 10)
        [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    """
    # Exact numbers, as a scale in the middle between two must not depend on rounding.
    margin = Fraction(1, 3 * num_convolutions)
    step = (1 - 2 * margin) / max(1, num_convolutions - 1)
    places = [margin + step * number for number in range(num_convolutions)]
    scales = [Fraction(number, max(1, num_scales - 1)) for number in range(num_scales)]
    distances = [[abs(place - scale) for place in places] for scale in scales]
    return [max(n for n, d in enumerate(row) if d == min(row)) for row in distances]
