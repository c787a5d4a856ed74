"""The decoder of TiTok: a sequence of tokens becomes an image."""

from collections.abc import Sequence
from typing import Annotated, Unpack, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.decoders.base import Decoder
from vqtrain.errors import require
from vqtrain.layers.patch_queries import PatchQueries, Queries
from vqtrain.layers.patches import HEADS, PixelHead, grid_of
from vqtrain.ops.seeds import seed_for
from vqtrain.ranges import at_least, checked, one_of
from vqtrain.shapes import by

NESTED = ("none", "uniform", "powers_of_2")


@final
class LatentQueryDecoder(Decoder):
    """A query for each patch gathers from the latents; what it becomes is turned into pixels.

    Args:
        out_channels: Channels of the images, at least 1.
        sample_size: Height and width of the images.
        patch_size: Side of a patch, in px, at least 1.
        head: From tokens to pixels: ``linear``, ``tanh_mlp`` or ``conv``.
        nested_dropout: How many of the first latents each sample keeps in training, a learned
            vector taking the place of the others: all with ``none``; with ``uniform`` any number is
            as likely, with ``powers_of_2`` any power of two up to ``num_tokens``. With these two
            the first n tokens decode alone. The numbers are a function of the seed, the step and
            the place of a sample in the step, so they are the same on resume, and for any number of
            ranks and batches in a step.
        **queries: See ``Queries``.

    Raises:
        ConfigError: If a size is invalid, or sizes do not fit each other.

    References:
        Yu et al. 2024, arXiv:2406.07550 (TiTok), trained in a single stage; Rippel et al. 2014,
        arXiv:1402.0915, for nested dropout; Bachmann et al. 2025, arXiv:2502.13967 (FlexTok), for
        it on tokens.
        Deviation: as in the encoder.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        sample_size: Sequence[int],
        patch_size: Annotated[int, at_least(1)],
        head: Annotated[str, one_of(*HEADS)],
        nested_dropout: Annotated[str, one_of(*NESTED)],
        **queries: Unpack[Queries],
    ) -> None:
        super().__init__()
        dim = self.in_channels = queries["dim"]
        self.num_tokens = queries["num_tokens"]
        self.upsampling = (patch_size, patch_size)
        self.sample_size = tuple(sample_size)
        self.queries = PatchQueries(grid=grid_of(sample_size, self.upsampling), **queries)
        self.nested_dropout = nested_dropout
        self.step_seed, self.batches = 0, 0
        if nested_dropout != "none":
            self.dropped = nn.Parameter(nn.init.trunc_normal_(torch.empty(dim), std=0.02))
        self.head = PixelHead(head, dim=dim, out_channels=out_channels, sides=self.upsampling)

    @property
    def last_layer(self) -> nn.Module:
        """The map from tokens to pixels; a convolution after it has too few weights to compare."""
        return self.head.to_pixels

    def size(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the images, for all latents or, with nested dropout, the first n."""
        nested = self.nested_dropout != "none"
        least = 1 if nested else self.num_tokens
        taken = f"{self.num_tokens} latents" + (" or the first of them" if nested else "")
        remedy = "give encoder and decoder the same num_tokens"
        if not nested:
            remedy += ", or to decode the first n, train with decoder.nested_dropout=uniform"
        require(
            len(grid) == 1 and least <= grid[0] <= self.num_tokens,
            f"the decoder takes {taken}, got a grid of {by(grid)}: {remedy}",
        )
        return tuple(
            n * factor for n, factor in zip(self.queries.grid, self.upsampling, strict=True)
        )

    def begin_step(self, step: int, seed: int) -> None:
        """Begin with the first sample of a step."""
        self.step_seed, self.batches = seed_for(seed, "nested dropout", step), 0

    def forward(self, z_q: Float[Tensor, "b z n"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        latents = z_q.transpose(1, 2)
        if self.nested_dropout != "none":
            latents = self._with_dropped(latents)
        return self.head(self.queries(latents))

    def _with_dropped(self, latents: Float[Tensor, "b m z"]) -> Float[Tensor, "b n z"]:
        b, m = latents.shape[:2]
        kept = latents.new_full((b,), m, dtype=torch.long)
        if self.training:
            kept = torch.tensor(self._draw_numbers(b, m), device=latents.device)
        missing = self.dropped.expand(b, self.num_tokens - m, -1)
        all_latents = torch.cat([latents, missing], dim=1)
        places = torch.arange(self.num_tokens, device=latents.device)
        is_kept: Bool[Tensor, "b n"] = places < kept[:, None]
        return torch.where(is_kept[..., None], all_latents, self.dropped)

    @torch.compiler.disable  # a graph would be compiled anew for the seed of each step
    def _draw_numbers(self, samples: int, latents: int) -> list[int]:
        """Draw how many latents each sample of the next batch of the step keeps."""
        places = distributed.places(self.batches, samples)
        self.batches += 1
        draws = [seed_for(self.step_seed, place) for place in places]
        if self.nested_dropout == "uniform":
            return [1 + draw % latents for draw in draws]
        return [2 ** (draw % latents.bit_length()) for draw in draws]
