"""The networks of the VQ-VAE: strided convolutions and a few residual blocks."""

from itertools import pairwise

from torch import nn

from vqtrain.layers.residual import BottleneckBlock


def strided_down(
    *, in_channels: int, channels: int, block_channels: int, num_blocks: int, num_downsamplings: int
) -> nn.Sequential:
    """Build convolutions of stride 2, then residual blocks; what comes out is never negative.

    Args:
        in_channels: Channels in.
        channels: Channels out; half as many after the first convolution.
        block_channels: Channels inside the residual blocks.
        num_blocks: Residual blocks.
        num_downsamplings: Convolutions of stride 2, at least 1.
    """
    widths = [in_channels, channels // 2] + [channels] * (num_downsamplings - 1)
    layers: list[nn.Module] = []
    for width, next_width in pairwise(widths):
        layers.append(nn.Conv2d(width, next_width, kernel_size=4, stride=2, padding=1))
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1))
    layers.extend(
        BottleneckBlock(channels=channels, block_channels=block_channels) for _ in range(num_blocks)
    )
    layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def strided_up(
    *,
    in_channels: int,
    out_channels: int,
    channels: int,
    block_channels: int,
    num_blocks: int,
    num_upsamplings: int,
) -> nn.Sequential:
    """Build residual blocks, then transposed convolutions of stride 2.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        channels: Channels between them; half as many before the last transposed convolution, if
            there are several.
        block_channels: Channels inside the residual blocks.
        num_blocks: Residual blocks.
        num_upsamplings: Transposed convolutions of stride 2, at least 1.
    """
    layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, kernel_size=3, padding=1)]
    layers.extend(
        BottleneckBlock(channels=channels, block_channels=block_channels) for _ in range(num_blocks)
    )
    width = channels
    for remaining in reversed(range(num_upsamplings)):
        next_width = {0: out_channels, 1: channels // 2}.get(remaining, channels)
        layers.append(nn.ReLU(inplace=True))
        layers.append(nn.ConvTranspose2d(width, next_width, kernel_size=4, stride=2, padding=1))
        width = next_width
    return nn.Sequential(*layers)
