"""Parts of the VQGAN encoder and decoder: levels of one resolution, and the middle."""

from collections.abc import Sequence
from typing import Annotated, Unpack, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import ConfigError
from vqtrain.layers.attention import SpatialAttention
from vqtrain.layers.block import Level
from vqtrain.layers.convolutional import Stages, widths_of
from vqtrain.layers.resampling import Downsample, Upsample
from vqtrain.layers.residual import ResidualBlock
from vqtrain.ranges import within


class Levels(Stages):
    """Sizes that encoder and decoder have; each stage is a level.

    Attributes:
        attention_factors: Downsampling factors of the levels whose blocks attention follows.
        dropout: Share of activations dropped in each residual block, in [0, 1).
    """

    attention_factors: list[int]
    dropout: Annotated[float, within(0, 1, below_high=True)]


def build_levels(
    inputs: Sequence[int], *, upsample: bool, **levels: Unpack[Levels]
) -> nn.ModuleList:
    """Build the levels of an encoder or a decoder, from the full resolution.

    Args:
        inputs: Channels before each level.
        upsample: Whether all but the first level double the resolution, as in a decoder; if not,
            all but the last halve it.
        **levels: See ``Levels``.

    Raises:
        ConfigError: If an attention factor fits no level.
    """
    widths = widths_of(levels)
    last = len(widths) - 1
    factors = [2**level for level in range(len(widths))]
    for factor in levels["attention_factors"]:
        if factor not in factors:
            raise ConfigError(f"attention_factors must be taken from {factors}, got {factor}")
    return nn.ModuleList(
        ResidualLevel(
            in_channels=before,
            out_channels=width,
            num_blocks=levels["num_blocks"],
            use_attention=2**level in levels["attention_factors"],
            dropout=levels["dropout"],
            downsample=not upsample and level != last,
            upsample=upsample and level != 0,
        )
        for level, (before, width) in enumerate(zip(inputs, widths, strict=True))
    )


@final
class ResidualLevel(Level):
    """Residual blocks at one resolution, then the change to the next resolution.

    Args:
        in_channels: Channels in, at least 1.
        out_channels: Channels out, at least 1.
        num_blocks: Residual blocks, at least 1.
        use_attention: Whether attention follows each block.
        dropout: Share of activations dropped in each block, in [0, 1).
        downsample: Whether the resolution is halved at the end.
        upsample: Whether the resolution is doubled at the end.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        num_blocks: int,
        use_attention: bool,
        dropout: float,
        downsample: bool,
        upsample: bool,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            ResidualBlock(
                in_channels=in_channels if index == 0 else out_channels,
                out_channels=out_channels,
                dropout=dropout,
            )
            for index in range(num_blocks)
        )
        self.attn = nn.ModuleList(
            SpatialAttention(channels=out_channels) if use_attention else nn.Identity()
            for _ in range(num_blocks)
        )
        self.downsample = Downsample(channels=out_channels) if downsample else nn.Identity()
        self.upsample = Upsample(channels=out_channels) if upsample else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h_next w_next"]:
        """Apply the blocks in turn, then change the resolution."""
        for block, attention in zip(self.block, self.attn, strict=True):
            x = attention(block(x))
        return self.upsample(self.downsample(x))


@final
class Middle(Level):
    """A residual block, attention and a residual block at the resolution of the latents.

    Args:
        channels: Channels in and out, at least 1.
        dropout: Share of activations dropped in each block, in [0, 1).
    """

    def __init__(self, *, channels: int, dropout: float) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(in_channels=channels, out_channels=channels, dropout=dropout)
        self.attn_1 = SpatialAttention(channels=channels)
        self.block_2 = ResidualBlock(in_channels=channels, out_channels=channels, dropout=dropout)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Apply the three in turn."""
        return self.block_2(self.attn_1(self.block_1(x)))
