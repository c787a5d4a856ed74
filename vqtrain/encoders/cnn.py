"""The encoder of the VQGAN."""

from typing import Annotated, Unpack, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.encoders.base import Encoder
from vqtrain.layers.convolutional import widths_of
from vqtrain.layers.level import Levels, Middle, build_levels
from vqtrain.layers.norm import group_norm
from vqtrain.layers.resampling import factors
from vqtrain.ranges import at_least, checked


@final
class CNNEncoder(Encoder):
    """Levels of residual blocks, each at half the resolution of the one before.

    The parameters have the names and shapes of the published VQGAN code, so its weights fit.

    Args:
        in_channels: Channels of the images, at least 1.
        latent_convolution: Whether another 3x3 convolution follows, as in VAR: its code has it in
            the place of the 1x1 projection to the codebook.
        **levels: See ``Levels``.

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
        latent_convolution: bool = False,
        **levels: Unpack[Levels],
    ) -> None:
        super().__init__()
        z, widths = levels["latent_channels"], widths_of(levels)
        self.out_channels, self.downsampling = z, factors(levels["multipliers"])
        self.conv_in = nn.Conv2d(in_channels, levels["channels"], kernel_size=3, padding=1)
        self.down = build_levels([levels["channels"], *widths[:-1]], upsample=False, **levels)
        self.mid = Middle(channels=widths[-1], dropout=levels["dropout"])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z, kernel_size=3, padding=1)
        self.quant_conv = (
            nn.Conv2d(z, z, kernel_size=3, padding=1) if latent_convolution else nn.Identity()
        )

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]."""
        h = self.conv_in(samples)
        for level in self.down:
            h = level(h)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(self.mid(h)))))
