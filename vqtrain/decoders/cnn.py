"""The decoder of the VQGAN."""

from typing import Annotated, Unpack, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.convolutional import widths_of
from vqtrain.layers.level import Levels, Middle, build_levels
from vqtrain.layers.norm import group_norm
from vqtrain.layers.resampling import factors
from vqtrain.ranges import at_least, checked


@final
class CNNDecoder(Decoder):
    """Levels of residual blocks, each at twice the resolution of the one before.

    Levels are counted from the full resolution, as in the encoder, so ``up.0`` comes last. The
    parameters have the names and shapes of the published VQGAN code, so its weights fit.

    Args:
        out_channels: Channels of the images, at least 1.
        latent_convolution: Whether another 3x3 convolution comes first, as in VAR: its code has it
            in the place of the 1x1 projection from the codebook.
        **levels: See ``Levels``; each level here has one block more than ``num_blocks``.

    Raises:
        ConfigError: If a size is too small, an attention factor fits no level,
            or ``dropout`` is not in [0, 1).

    References:
        As of ``vqtrain.encoders.cnn``, with the same deviation.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        latent_convolution: bool = False,
        **levels: Unpack[Levels],
    ) -> None:
        super().__init__()
        z, widths = levels["latent_channels"], widths_of(levels)
        self.in_channels, self.upsampling = z, factors(levels["multipliers"])
        self.post_quant_conv = (
            nn.Conv2d(z, z, kernel_size=3, padding=1) if latent_convolution else nn.Identity()
        )
        self.conv_in = nn.Conv2d(z, widths[-1], kernel_size=3, padding=1)
        self.mid = Middle(channels=widths[-1], dropout=levels["dropout"])
        one_more: Levels = {**levels, "num_blocks": levels["num_blocks"] + 1}
        self.up = build_levels([*widths[1:], widths[-1]], upsample=True, **one_more)
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
