"""The decoder of the ViT-VQGAN: a transformer that ends in patches."""

from collections.abc import Sequence
from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.patches import HEADS, PatchSize, PixelHead, grid_of, sides_of
from vqtrain.layers.transformer import Blocks, GridTransformer
from vqtrain.ranges import at_least, checked, one_of


@final
class ViTDecoder(Decoder):
    """Lets all latents see each other, and turns each into the pixels of its patch.

    Args:
        out_channels: Channels of the samples, at least 1.
        sample_size: Height and width in training, after the frames of a clip; positions are
            interpolated to others.
        patch_size: Side of a patch along all axes, at least 1, or one for each axis.
        head: From tokens to pixels: ``linear``; ``tanh_mlp``, with a hidden layer; ``conv``, with a
            convolution of the pixels, 3 along each axis.
        **transformer: See ``Blocks``; latents have the channels of tokens.

    Raises:
        ConfigError: If a size is invalid, or sizes do not fit each other.

    References:
        Yu et al. 2021, arXiv:2110.04627: head linear.
        Zhao et al. 2024, arXiv:2406.07548 (BSQ-ViT): head tanh_mlp.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        sample_size: Sequence[int],
        patch_size: PatchSize,
        head: Annotated[str, one_of(*HEADS)],
        **transformer: Unpack[Blocks],
    ) -> None:
        super().__init__()
        dim = self.in_channels = transformer["dim"]
        sides = self.upsampling = sides_of(patch_size, sample_size)
        self.sample_size = tuple(sample_size)
        self.transformer = GridTransformer(
            grid=grid_of(sample_size, sides),
            **transformer,
        )
        self.head = PixelHead(head, dim=dim, out_channels=out_channels, sides=sides)

    @property
    def last_layer(self) -> nn.Module:
        """The map from tokens to pixels; a convolution after it has too few weights to compare."""
        return self.head.to_pixels

    def forward(self, z_q: Float[Tensor, "b z *grid"]) -> Float[Tensor, "b c *size"]:
        """Decode quantized latents into samples, about in [-1, 1] but not clamped to it."""
        return self.head(self.transformer(z_q))
