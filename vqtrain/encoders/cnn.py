"""The encoder of the VQGAN."""

from typing import Annotated, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.layers.level import Level, Middle, check_levels
from vqtrain.layers.norm import group_norm
from vqtrain.ranges import at_least, checked, within


@final
class CNNEncoder(Encoder):
    """Levels of residual blocks, each at half the resolution of the one before.

    The parameters have the names and shapes of the published VQGAN code, so its weights fit.

    Args:
        in_channels: Channels of the images, at least 1.
        channels: Channels that the multipliers multiply, at least 1.
        multipliers: Width of each level, each at least 1; n levels downsample by 2**(n - 1).
        num_blocks: Residual blocks in each level, at least 1.
        attention_factors: Downsampling factors of the levels whose blocks attention follows.
        latent_channels: Channels of the latents, at least 1.
        dropout: Share of activations dropped in each residual block, in [0, 1).
        latent_convolution: Whether another 3x3 convolution follows, as in VAR: its code has it in
            the place of the 1x1 projection to the codebook.

    Raises:
        ConfigError: If a size is too small, an attention factor fits no level,
            or ``dropout`` is not in [0, 1).

    References:
        Esser et al. 2021, arXiv:2012.09841, table 7; Tian et al. 2024, arXiv:2404.02905.
        Deviation: attention is placed by downsampling factor, not by resolution, so that it does
        not depend on the size of the images; channels that 32 does not divide are allowed.
    """

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(1)],
        multipliers: list[int],
        num_blocks: Annotated[int, at_least(1)],
        attention_factors: list[int],
        latent_channels: Annotated[int, at_least(1)],
        dropout: Annotated[float, within(0, 1, below_high=True)],
        latent_convolution: bool = False,
    ) -> None:
        super().__init__()
        check_levels(multipliers=multipliers, attention_factors=attention_factors)
        last = len(multipliers) - 1
        self.out_channels = latent_channels
        self.downsampling = (2**last, 2**last)
        widths = [channels * multiplier for multiplier in multipliers]
        self.conv_in = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1)
        self.down = nn.ModuleList(
            Level(
                in_channels=channels if level == 0 else widths[level - 1],
                out_channels=width,
                num_blocks=num_blocks,
                use_attention=2**level in attention_factors,
                dropout=dropout,
                downsample=level != last,
                upsample=False,
            )
            for level, width in enumerate(widths)
        )
        self.mid = Middle(channels=widths[-1], dropout=dropout)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], latent_channels, kernel_size=3, padding=1)
        self.quant_conv = (
            nn.Conv2d(latent_channels, latent_channels, kernel_size=3, padding=1)
            if latent_convolution
            else nn.Identity()
        )

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]."""
        h = self.conv_in(samples)
        for level in self.down:
            h = level(h)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(self.mid(h)))))
