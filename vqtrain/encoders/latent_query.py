"""The encoder of TiTok: an image becomes a sequence of tokens, of any length."""

from collections.abc import Sequence
from typing import Annotated, Unpack, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.errors import require
from vqtrain.layers.patch_queries import Queries, build_transformer
from vqtrain.layers.patches import grid_of, to_patches
from vqtrain.layers.positions import SINE_STD, build_table
from vqtrain.ranges import at_least, checked
from vqtrain.shapes import by


@final
class LatentQueryEncoder(Encoder):
    """Learned queries gather from the patches of an image; what they become are its latents.

    Args:
        in_channels: Channels of the images, at least 1.
        sample_size: Height and width of the images; no others are taken.
        patch_size: Side of a patch, in px, at least 1.
        transpose: Whether the channels of a latent stay together. False cuts the values of all
            latents, one after the other, into ``dim`` rows for the channels, as the code of the
            published two-stage models does.
        **queries: See ``Queries``.

    Raises:
        ConfigError: If a size is invalid, or sizes do not fit each other.

    References:
        Yu et al. 2024, arXiv:2406.07550 (TiTok), trained in a single stage.
        Jaegle et al. 2021, arXiv:2103.03206 (Perceiver), for ``cross``.
        Deviation: one learned vector takes the place of each sum of two in TiTok's code (the class
        token and its position, a query and its position).
    """

    sample_size: tuple[int, ...]

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        sample_size: Sequence[int],
        patch_size: Annotated[int, at_least(1)],
        transpose: bool,
        **queries: Unpack[Queries],
    ) -> None:
        super().__init__()
        dim, num_tokens = queries["dim"], queries["num_tokens"]
        self.out_channels, self.num_tokens, self.transpose = dim, num_tokens, transpose
        self.downsampling = (patch_size, patch_size)
        self.sample_size = tuple(sample_size)
        self.embed = nn.Conv2d(in_channels * patch_size**2, dim, 1)
        grid = grid_of(sample_size, self.downsampling)
        self.positions = build_table(queries["positions"], grid=grid, dim=dim, std=SINE_STD)
        self.class_token = nn.Parameter(torch.randn(1, dim) * SINE_STD)
        self.queries = nn.Parameter(torch.randn(num_tokens, dim) * SINE_STD)
        self.transformer = build_transformer(queries)

    def grid(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the number of latents."""
        require(
            tuple(size) == self.sample_size,
            f"this encoder takes samples of {by(self.sample_size)}, got {by(size)}",
        )
        return (self.num_tokens,)

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z n"]:
        """Encode images in [-1, 1]."""
        patches = self.embed(to_patches(samples, self.downsampling))
        tokens = rearrange(patches, "b d rows columns -> b (rows columns) d")
        tokens = tokens + self.positions.added(patches.shape[2:]).to(tokens.dtype)
        b = tokens.shape[0]
        tokens = torch.cat([self.class_token.expand(b, -1, -1), tokens], dim=1)
        latents = self.transformer(self.queries.expand(b, -1, -1), tokens)
        if self.transpose:
            return latents.transpose(1, 2)
        return latents.reshape(b, self.out_channels, self.num_tokens)
