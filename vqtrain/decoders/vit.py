"""The decoder of the ViT-VQGAN: a transformer that ends in patches."""

from collections.abc import Sequence
from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.patches import HEADS, PixelHead, grid_of
from vqtrain.layers.transformer import Blocks, GridTransformer
from vqtrain.ranges import at_least, checked, one_of


@final
class ViTDecoder(Decoder):
    """Lets all latents see each other, and turns each into the pixels of its patch.

    Args:
        out_channels: Channels of the images, at least 1.
        sample_size: Height and width in training; positions are interpolated to others.
        patch_size: Side of a patch, in px, at least 1.
        head: From tokens to pixels: ``linear``; ``tanh_mlp``, with a hidden layer; ``conv``, with a
            3x3 convolution of the pixels.
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
        patch_size: Annotated[int, at_least(1)],
        head: Annotated[str, one_of(*HEADS)],
        **transformer: Unpack[Blocks],
    ) -> None:
        super().__init__()
        dim = self.in_channels = transformer["dim"]
        self.upsampling = (patch_size, patch_size)
        self.sample_size = tuple(sample_size)
        self.transformer = GridTransformer(
            grid=grid_of(sample_size, patch_size),
            **transformer,
        )
        self.head = PixelHead(head, dim=dim, out_channels=out_channels, patch_size=patch_size)

    @property
    def last_layer(self) -> nn.Module:
        """The map from tokens to pixels; a convolution after it has too few weights to compare."""
        return self.head.to_pixels

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        return self.head(self.transformer(z_q))
