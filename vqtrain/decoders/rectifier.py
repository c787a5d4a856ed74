"""A decoder of latents into latents: it removes what quantization has added."""

from typing import Annotated, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.layers.norm import group_norm
from vqtrain.layers.residual import ResidualBlock
from vqtrain.ranges import at_least, checked


@final
class RectifierDecoder(Decoder):
    """Residual blocks on the grid of the latents, whose output is added to them.

    It begins as the identity map: its last convolution is zero.

    Args:
        out_channels: Channels of the latents, before and after, at least 1.
        channels: Channels of the blocks, at least 1.
        num_blocks: Residual blocks, at least 1.

    Raises:
        ConfigError: If a size is too small.

    References:
        Zhang et al. 2025, arXiv:2507.10547, section 3.3. Deviation: the blocks are those of the
        VQGAN, and the rectifier predicts a correction.
    """

    @checked
    def __init__(
        self,
        *,
        out_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(1)],
        num_blocks: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        self.in_channels, self.upsampling = out_channels, (1, 1)
        self.conv_in = nn.Conv2d(out_channels, channels, kernel_size=3, padding=1)
        self.block = nn.ModuleList(
            ResidualBlock(in_channels=channels, out_channels=channels) for _ in range(num_blocks)
        )
        self.norm_out = group_norm(channels)
        self.conv_out = nn.Conv2d(channels, out_channels, kernel_size=3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        if self.conv_out.bias is not None:
            nn.init.zeros_(self.conv_out.bias)

    @property
    def last_layer(self) -> nn.Module:
        """The convolution that produces the correction."""
        return self.conv_out

    def forward(self, z_q: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add the correction to the quantized latents."""
        h = self.conv_in(z_q)
        for block in self.block:
            h = block(h)
        return z_q + self.conv_out(F.silu(self.norm_out(h)))
