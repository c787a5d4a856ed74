"""The encoder of the ViT-VQGAN: a transformer over patches."""

from collections.abc import Sequence
from typing import Annotated, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.layers.patches import grid_of, to_patches
from vqtrain.layers.positions import KINDS
from vqtrain.layers.transformer import ACTIVATIONS, GridTransformer
from vqtrain.ranges import at_least, checked, one_of


@final
class ViTEncoder(Encoder):
    """Embeds patches linearly, and lets all of them see each other.

    Args:
        in_channels: Channels of the images, at least 1.
        sample_size: Height and width in training; positions are interpolated to others.
        patch_size: Side of a patch, in px, at least 1: one latent per patch.
        dim: Channels of the tokens, and of the latents.
        depth: Blocks, at least 1.
        num_heads: Attention heads, at least 1.
        head_dim: Channels of each head; None for ``dim`` / ``num_heads``.
        mlp_dim: Channels inside the MLPs; None for 4 ``dim``.
        activation: Inside the MLPs, ``gelu`` or ``tanh``.
        qkv_bias: Whether queries, keys and values have biases.
        pre_norm: Whether a layer norm comes before the first block; the patches then need no bias.
        positions: Position codes: ``learned``, ``learned_2d``, ``sincos_2d`` or ``rope_2d``.

    Raises:
        ConfigError: If a size is invalid, or sizes do not fit each other.

    References:
        Yu et al. 2021, arXiv:2110.04627: sincos_2d, tanh, no biases of queries, keys and values.
        Zhao et al. 2024, arXiv:2406.07548 (BSQ-ViT): learned, gelu, pre_norm.
    """

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
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
    ) -> None:
        super().__init__()
        self.out_channels = dim
        self.downsampling = (patch_size, patch_size)
        self.embed = nn.Conv2d(in_channels * patch_size**2, dim, 1, bias=not pre_norm)
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

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]."""
        return self.transformer(self.embed(to_patches(samples, self.downsampling[0])))
