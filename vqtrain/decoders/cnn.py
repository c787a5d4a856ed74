"""The decoder of the VQGAN."""

from typing import Annotated, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.level import Level, Middle, check_levels
from vqtrain.layers.norm import group_norm
from vqtrain.ranges import at_least, checked, within


@final
class CNNDecoder(Decoder):
    """Levels of residual blocks, each at twice the resolution of the one before.

    Levels are counted from the full resolution, as in the encoder, so ``up.0`` comes last. The
    parameters have the names and shapes of the published VQGAN code, so its weights fit.

    Args:
        out_channels: Channels of the images, at least 1.
        channels: Channels that the multipliers multiply, at least 1.
        multipliers: Width of each level, each at least 1; n levels upsample by 2**(n - 1).
        num_blocks: Residual blocks in each level of the encoder, at least 1; here it is one more.
        attention_factors: Downsampling factors of the levels whose blocks attention follows.
        latent_channels: Channels of the latents, at least 1.
        dropout: Share of activations dropped in each residual block, in [0, 1).
        latent_convolution: Whether another 3x3 convolution comes first, as in VAR: its code has it
            in the place of the 1x1 projection from the codebook.

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
        out_channels: Annotated[int, at_least(1)],
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
        self.in_channels = latent_channels
        self.upsampling = (2**last, 2**last)
        widths = [channels * multiplier for multiplier in multipliers]
        self.post_quant_conv = (
            nn.Conv2d(latent_channels, latent_channels, kernel_size=3, padding=1)
            if latent_convolution
            else nn.Identity()
        )
        self.conv_in = nn.Conv2d(latent_channels, widths[-1], kernel_size=3, padding=1)
        self.mid = Middle(channels=widths[-1], dropout=dropout)
        self.up = nn.ModuleList(
            Level(
                in_channels=widths[min(level + 1, last)],
                out_channels=width,
                num_blocks=num_blocks + 1,
                use_attention=2**level in attention_factors,
                dropout=dropout,
                downsample=False,
                upsample=level != 0,
            )
            for level, width in enumerate(widths)
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, kernel_size=3, padding=1)

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the pixels."""
        return self.conv_out

    def forward(self, z_q: Float[Tensor, "b z h_z w_z"]) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents into images, about in [-1, 1] but not clamped to it."""
        h = self.mid(self.conv_in(self.post_quant_conv(z_q)))
        for level in reversed(self.up):
            h = level(h)
        return self.conv_out(F.silu(self.norm_out(h)))
