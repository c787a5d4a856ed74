"""The decoder of the ViT-VQGAN: a transformer that ends in patches."""

from collections.abc import Sequence
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.patches import HEADS, PixelHead, grid_of
from vqtrain.layers.positions import KINDS
from vqtrain.layers.transformer import ACTIVATIONS, GridTransformer
from vqtrain.ranges import at_least, checked, one_of


@final
class ViTDecoder(Decoder):
    """Lets all latents see each other, and turns each into the pixels of its patch.

    Args:
        out_channels: Channels of the images, at least 1.
        sample_size: Height and width in training; positions are interpolated to others.
        patch_size: Side of a patch, in px, at least 1.
        dim: Channels of the tokens, and of the latents.
        depth: Blocks, at least 1.
        num_heads: Attention heads, at least 1.
        head_dim: Channels of each head; None for ``dim`` / ``num_heads``.
        mlp_dim: Channels inside the MLPs; None for 4 ``dim``.
        activation: Inside the MLPs, ``gelu`` or ``tanh``.
        qkv_bias: Whether queries, keys and values have biases.
        pre_norm: Whether a layer norm comes before the first block.
        positions: Position codes: ``learned``, ``learned_2d``, ``sincos_2d`` or ``rope_2d``.
        head: From tokens to pixels: ``linear``; ``tanh_mlp``, with a hidden layer; ``conv``, with a
            3x3 convolution of the pixels.

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
        dim: Annotated[int, at_least(1)],
        depth: Annotated[int, at_least(1)],
        num_heads: Annotated[int, at_least(1)],
        head_dim: Annotated[int, at_least(1)] | None,
        mlp_dim: Annotated[int, at_least(1)] | None,
        activation: Annotated[str, one_of(*ACTIVATIONS)],
        qkv_bias: bool,
        pre_norm: bool,
        positions: Annotated[str, one_of(*KINDS)],
        head: Annotated[str, one_of(*HEADS)],
    ) -> None:
        super().__init__()
        self.in_channels = dim
        self.upsampling = (patch_size, patch_size)
        self.transformer = GridTransformer(
            grid=grid_of(sample_size, patch_size),
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            head_dim=head_dim,
            mlp_dim=mlp_dim,
            activation=activation,
            qkv_bias=qkv_bias,
            pre_norm=pre_norm,
            positions=positions,
        )
        self.head = PixelHead(head, dim=dim, out_channels=out_channels, patch_size=patch_size)

    @property
    def last_layer(self) -> nn.Module:
        """The map from tokens to pixels; a convolution after it has too few weights to compare."""
        return self.head.to_pixels

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        return self.head(self.transformer(z_q))
