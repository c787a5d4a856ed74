"""The encoder of the ViT-VQGAN: a transformer over patches."""

from collections.abc import Sequence
from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.layers.patches import grid_of, to_patches
from vqtrain.layers.transformer import Blocks, GridTransformer
from vqtrain.ranges import at_least, checked


@final
class ViTEncoder(Encoder):
    """Embeds patches linearly, and lets all of them see each other.

    Args:
        in_channels: Channels of the images, at least 1.
        sample_size: Height and width in training; positions are interpolated to others.
        patch_size: Side of a patch, in px, at least 1: one latent per patch.
        **transformer: See ``Blocks``; latents have the channels of tokens. With ``pre_norm`` the
            patches need no bias.

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
        **transformer: Unpack[Blocks],
    ) -> None:
        super().__init__()
        dim = self.out_channels = transformer["dim"]
        self.downsampling = (patch_size, patch_size)
        self.sample_size = tuple(sample_size)
        self.embed = nn.Conv2d(
            in_channels * patch_size**2, dim, 1, bias=not transformer["pre_norm"]
        )
        self.transformer = GridTransformer(
            grid=grid_of(sample_size, patch_size),
            **transformer,
        )

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]."""
        return self.transformer(self.embed(to_patches(samples, self.downsampling[0])))
