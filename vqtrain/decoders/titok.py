"""The decoder of the two-stage TiTok, which decodes into the codes of another tokenizer."""

from collections.abc import Sequence
from typing import Annotated, Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.decoders.maskgit import MaskGITDecoder
from vqtrain.errors import require
from vqtrain.layers.convolutional import Stages
from vqtrain.layers.patch_queries import PatchQueries
from vqtrain.layers.patches import grid_of
from vqtrain.ranges import at_least, checked
from vqtrain.shapes import by


@final
class TiTokDecoder(Decoder):
    """Predicts a mixture of the codes of MaskGIT's tokenizer, which MaskGIT's decoder decodes.

    Args:
        out_channels: Channels of the images, at least 1.
        sample_size: Height and width of the images.
        num_tokens: Latents of an image, at least 1.
        dim: Channels of tokens and latents.
        depth: Blocks, at least 1.
        num_heads: Attention heads, which divide ``dim``.
        num_codes: Codes that are mixed, at least 1.
        **stages: Of MaskGIT's decoder, see ``Stages``; a patch takes the place of a latent, and a
            code has the channels of a latent.

    Raises:
        ConfigError: If a size is invalid, or sizes do not fit each other.

    References:
        Yu et al. 2024, arXiv:2406.07550. Deviation: one learned vector takes the place of the class
        token and its position.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        sample_size: Sequence[int],
        num_tokens: Annotated[int, at_least(1)],
        dim: Annotated[int, at_least(1)],
        depth: Annotated[int, at_least(1)],
        num_heads: Annotated[int, at_least(1)],
        num_codes: Annotated[int, at_least(1)],
        **stages: Unpack[Stages],
    ) -> None:
        super().__init__()
        self.in_channels, self.num_tokens = dim, num_tokens
        self.pixels = MaskGITDecoder(out_channels=out_channels, **stages)
        self.upsampling = self.pixels.upsampling
        self.sample_size = tuple(sample_size)
        self.queries = PatchQueries(
            grid=grid_of(sample_size, self.upsampling),
            num_tokens=num_tokens,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            attention="self",
            positions="learned",
        )
        self.scores = nn.Sequential(
            nn.Conv2d(dim, 2 * dim, 1), nn.Tanh(), nn.Conv2d(2 * dim, num_codes, 1)
        )
        codes = torch.empty(num_codes, stages["latent_channels"])
        self.codes = nn.Parameter(nn.init.uniform_(codes, -1 / num_codes, 1 / num_codes))

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the pixels."""
        return self.pixels.last_layer

    def size(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the images."""
        require(
            tuple(grid) == (self.num_tokens,),
            f"this decoder takes {self.num_tokens} latents, got a grid of {by(grid)}",
        )
        return self.pixels.size(self.queries.grid)

    def forward(self, z_q: Float[Tensor, "b z n"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        shares = self.scores(self.queries(z_q.transpose(1, 2))).softmax(dim=1)
        return self.pixels(torch.einsum("bkhw,kz->bzhw", shares, self.codes))
