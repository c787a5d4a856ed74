"""The discriminator of StyleGAN2."""

import math
from collections.abc import Sequence
from typing import Annotated, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.discriminators.base import Discriminator
from vqtrain.errors import require
from vqtrain.layers.blur import Blur
from vqtrain.ops.precision import at_least_float32
from vqtrain.ranges import at_least, checked
from vqtrain.shapes import by

# The shorter side of the map that the linear head reads has this many rows, or less than twice as
# many where the side of an image is no power of two.
LEAST_SIDE = 4


def activate(x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
    """Apply a leaky ReLU that about keeps the second moment."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


@final
class EqualizedConv(nn.Module):
    """A convolution whose weights have a deviation of 1, and are scaled to keep the variance.

    So the learning rate, which Adam takes relative to a deviation of 1, is the same for all layers.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Side of the kernel.
        stride: Of the convolution.
        padding: Zeros on each side.
        bias: Whether there is a bias, which begins at 0.

    References:
        Karras et al. 2018, arXiv:1710.10196, section 4.1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d rows columns"]:
        """Convolve."""
        weight = self.weight * self.weight[0].numel() ** -0.5
        return F.conv2d(x, weight, self.bias, stride=self.stride, padding=self.padding)


@final
class EqualizedLinear(nn.Module):
    """A linear map whose weights have a deviation of 1; see ``EqualizedConv``."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Float[Tensor, "b n"]) -> Float[Tensor, "b m"]:
        """Map each vector."""
        return F.linear(x, self.weight * self.weight[0].numel() ** -0.5, self.bias)


@final
class StyleBlock(nn.Module):
    """Halves the resolution by two convolutions, with a 1x1 convolution as a shortcut.

    Both branches are blurred before they are subsampled, and a side of n becomes n // 2 in both.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv(in_channels, in_channels, 3, padding=1)
        self.blur = Blur(stride=1, padding=2)
        self.conv2 = EqualizedConv(in_channels, out_channels, 3, stride=2)
        # A 1x1 convolution of stride 2 after a blur is one of stride 1 after a blur of stride 2.
        self.shortcut_blur = Blur(stride=2, padding=1)
        self.shortcut = EqualizedConv(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d rows columns"]:
        """Average both branches, in variance."""
        h = activate(self.conv2(self.blur(activate(self.conv1(x)))))
        return (h + self.shortcut(self.shortcut_blur(x))) * 0.5**0.5


@final
class MinibatchDeviation(nn.Module):
    """Adds a channel that says how much the samples of a group differ, on average over the map.

    Neighbors of a batch make a group. A batch that is no multiple of the group's size is divided
    into as many groups as are needed, as equal as possible.

    Args:
        group_size: Samples of a group.

    References:
        Karras et al. 2018, arXiv:1710.10196, section 3.
        Deviation: the published code takes every n-th sample for a group of a batch with n groups.
            With neighbors the groups are the same for any split of a step into batches of whole
            groups.
    """

    def __init__(self, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_plus_1 h w"]:
        """Append the channel."""
        added = []
        for group in at_least_float32(x).tensor_split(math.ceil(len(x) / self.group_size)):
            deviation = (group.var(dim=0, correction=0) + 1e-8).sqrt().mean()
            added.append(deviation.expand(len(group), 1, *x.shape[2:]))
        return torch.cat([x, torch.cat(added).to(x.dtype)], dim=1)


@final
class StyleGAN(Discriminator):
    """Classifies whole images of one size, by residual blocks down to about 4 x 4 positions.

    Samples of a group are compared, so a logit depends on the samples next to it: a step is the
    same for any number of ranks and batches if ``data.batch_size`` is a multiple of ``group_size``,
    and else it depends on them.

    Args:
        in_channels: Channels of an image, at least 1.
        sample_size: Height and width of the images, each at least 4 px.
        channels: Width at full resolution, at least 1; each block doubles it.
        max_channels: The width at which doubling stops, at least ``channels``.
        group_size: Images whose deviation is a feature, at least 1; 1 does without.

    Raises:
        ConfigError: If an argument is out of range, or an image too small or of another size.

    References:
        Karras et al. 2020, arXiv:1912.04958 (StyleGAN2), in the form of ViT-VQGAN, Yu et al. 2021,
        arXiv:2110.04627.
        Deviation: neighbors make a group, see ``MinibatchDeviation``; sides that are no powers of
            two are halved too, rounded down, until the shorter one is 4 to 7. ``channels`` is the
            published width at 256 px, for all sizes.
    """

    axes = 2
    size_hint = "it takes images of one size alone"
    batch_hint = "discriminator.group_size=1 takes any"

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        sample_size: Sequence[int],
        channels: Annotated[int, at_least(1)],
        max_channels: Annotated[int, at_least(1)],
        group_size: Annotated[int, at_least(1)],
    ) -> None:
        super().__init__()
        require(
            max_channels >= channels,
            f"max_channels must be at least channels ({channels}), got {max_channels}",
        )
        require(
            len(sample_size) == 2 and min(sample_size) >= LEAST_SIDE,
            f"takes images of at least {LEAST_SIDE} x {LEAST_SIDE} px, got {by(sample_size)}",
        )
        self.sample_size = tuple(sample_size)
        self.least_batch_size = min(2, group_size)
        num_blocks = int(math.log2(min(sample_size) // LEAST_SIDE))
        rows, columns = (side // 2**num_blocks for side in sample_size)
        widths = [min(channels * 2**block, max_channels) for block in range(num_blocks + 1)]
        self.from_image = EqualizedConv(in_channels, channels, 1)
        self.blocks = nn.Sequential(
            *(StyleBlock(*widths[block : block + 2]) for block in range(num_blocks))
        )
        self.deviation = MinibatchDeviation(group_size)
        self.conv = EqualizedConv(widths[-1] + 1, widths[-1], 3, padding=1)
        self.hidden = EqualizedLinear(widths[-1] * rows * columns, widths[-1])
        self.to_logit = EqualizedLinear(widths[-1], 1)

    def forward(self, samples: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b 1"]]:
        """Return one logit per image in [-1, 1]: positive for real."""
        require(
            tuple(samples.shape[2:]) == self.sample_size,
            f"the discriminator takes images of {by(self.sample_size)} px, "
            f"got {by(samples.shape[2:])}",
        )
        x = self.blocks(activate(self.from_image(samples)))
        x = activate(self.conv(self.deviation(x)))
        return [self.to_logit(activate(self.hidden(x.flatten(1))))]
