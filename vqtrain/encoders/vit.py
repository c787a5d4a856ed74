"""The encoder of the ViT-VQGAN: a transformer over patches."""

import math
from collections.abc import Sequence
from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor

from vqtrain.encoders.base import Encoder
from vqtrain.layers.patches import PatchSize, grid_of, sides_of, to_patches
from vqtrain.layers.pointwise import Pointwise
from vqtrain.layers.transformer import Blocks, GridTransformer
from vqtrain.ranges import at_least, checked


@final
class ViTEncoder(Encoder):
    """Embeds patches of images or clips linearly, and lets all of them see each other.

    Args:
        in_channels: Channels of the samples, at least 1.
        sample_size: Height and width in training, after the frames of a clip; positions are
            interpolated to others.
        patch_size: Side of a patch along all axes, at least 1, or one for each axis: one latent per
            patch.
        **transformer: See ``Blocks``; latents have the channels of tokens. With ``pre_norm`` the
            patches need no bias.

    Raises:
        ConfigError: If a size is invalid, or sizes do not fit each other.

    References:
        Yu et al. 2021, arXiv:2110.04627: sincos_2d, tanh, no biases of queries, keys and values.
        Zhao et al. 2024, arXiv:2406.07548 (BSQ-ViT): learned, gelu, pre_norm.
        Arnab et al. 2021, arXiv:2103.15691 (ViViT), for patches of several frames.
    """

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        sample_size: Sequence[int],
        patch_size: PatchSize,
        **transformer: Unpack[Blocks],
    ) -> None:
        super().__init__()
        dim = self.out_channels = transformer["dim"]
        sides = self.downsampling = sides_of(patch_size, sample_size)
        self.sample_size = tuple(sample_size)
        self.embed = Pointwise(
            in_channels * math.prod(sides), dim, bias=not transformer["pre_norm"]
        )
        self.transformer = GridTransformer(
            grid=grid_of(sample_size, sides),
            **transformer,
        )

    def forward(self, samples: Float[Tensor, "b c *size"]) -> Float[Tensor, "b z *grid"]:
        """Encode samples in [-1, 1]."""
        return self.transformer(self.embed(to_patches(samples, self.downsampling)))
