"""Residual blocks of dilated convolutions over time, and the strided ones between them."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, TypedDict, final

from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.activations import Activation, build_activation
from vqtrain.layers.block import Block, Level
from vqtrain.ranges import Range, at_least

# Builds a convolution over time that keeps the length: of channels before and after, the size of
# its kernel, and its dilation.
Convolution = Callable[[int, int, int, int], nn.Module]


@final
class DilatedBlock(Block):
    """Adds the output of two convolutions over time to its input, each after an activation.

    Args:
        channels: Channels in and out, at least 1.
        block_channels: Channels between the two, at least 1.
        kernel_size: Of the first convolution; that of the second is 1.
        dilation: Of the first convolution, at least 1.
        activation: One of ``ACTIVATIONS``.
        convolution: Builds a convolution.
        shortcut: What the input goes through before the sum.
    """

    def __init__(
        self,
        *,
        channels: int,
        block_channels: int,
        kernel_size: int,
        dilation: int,
        activation: str,
        convolution: Convolution,
        shortcut: nn.Module,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            build_activation(activation, channels),
            convolution(channels, block_channels, kernel_size, dilation),
            build_activation(activation, block_channels),
            convolution(block_channels, channels, 1, 1),
        )
        self.shortcut = shortcut

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b c t"]:
        """Add the output of the convolutions to ``x``."""
        return self.shortcut(x) + self.layers(x)


@final
class DilatedStage(nn.Sequential, Level):
    """Blocks at one resolution in time, and the change to or from the next."""


class DilatedStages(TypedDict):
    """Sizes that the ways down and up of Jukebox have.

    Attributes:
        channels: Of the convolutions between the samples and the latents, at least 1.
        num_blocks: Residual blocks after each convolution with a stride, at least 1.
        dilation_base: The dilation of the blocks of a stage is 1 and grows by this factor from
            block to block, at least 1.
        activation: One of ``ACTIVATIONS``.
        strides: Groups of strides, each at least 2, from the full resolution; at the end of each
            group a convolution leads to ``latent_channels``. Their product is the samples a latent.
        latent_channels: Channels of the latents, at least 1.
    """

    channels: Annotated[int, at_least(1)]
    num_blocks: Annotated[int, at_least(1)]
    dilation_base: Annotated[int, at_least(1)]
    activation: Activation
    strides: Annotated[
        list[list[int]],
        Range(
            "a list of groups of strides, such as [[2,2,2]], each stride at least 2",
            lambda groups: len(groups) > 0 and all(g and min(g) >= 2 for g in groups),
        ),
    ]
    latent_channels: Annotated[int, at_least(1)]


def hop(strides: Sequence[Sequence[int]]) -> int:
    """Return the samples a latent.

    Example:
        >>> hop([[2, 2, 2], [5]])
        40
    """
    return math.prod(stride for group in strides for stride in group)


def same_convolution(before: int, after: int, kernel_size: int, dilation: int) -> nn.Conv1d:
    """Build a convolution with zeros around its input, which keeps the length.

    Args:
        before: Channels in.
        after: Channels out.
        kernel_size: Odd.
        dilation: At least 1.
    """
    padding = dilation * (kernel_size // 2)
    return nn.Conv1d(before, after, kernel_size, padding=padding, dilation=dilation)


def _blocks(stages: DilatedStages, *, reverse: bool) -> list[nn.Module]:
    depths = range(stages["num_blocks"])
    return [
        DilatedBlock(
            channels=stages["channels"],
            block_channels=stages["channels"],
            kernel_size=3,
            dilation=stages["dilation_base"] ** depth,
            activation=stages["activation"],
            convolution=same_convolution,
            shortcut=nn.Identity(),
        )
        for depth in (reversed(depths) if reverse else depths)
    ]


def dilated_down(in_channels: int, stages: DilatedStages) -> nn.Sequential:
    """Build the way from a sound to latents: a strided convolution and blocks, again and again.

    A convolution with stride s has a kernel of 2 s positions.

    Args:
        in_channels: Channels in.
        stages: See ``DilatedStages``.
    """
    width, z, layers = stages["channels"], stages["latent_channels"], nn.Sequential()
    before = in_channels
    for group in stages["strides"]:
        for stride in group:
            down = nn.Conv1d(before, width, 2 * stride, stride, padding=(stride + 1) // 2)
            layers.append(DilatedStage(down, *_blocks(stages, reverse=False)))
            before = width
        layers.append(same_convolution(width, z, 3, 1))
        before = z
    return layers


def dilated_up(out_channels: int, stages: DilatedStages) -> nn.Sequential:
    """Build the way from latents to a sound, the mirror of ``dilated_down``.

    The strides are named from the full resolution, too, so that the last one comes first.

    Args:
        out_channels: Channels out, of a last convolution.
        stages: See ``DilatedStages``.
    """
    width, z, layers = stages["channels"], stages["latent_channels"], nn.Sequential()
    for group in reversed(stages["strides"]):
        layers.append(same_convolution(z, width, 3, 1))
        afters = [*[width] * (len(group) - 1), z]
        for stride, after in zip(reversed(group), afters, strict=True):
            padding, more = (stride + 1) // 2, stride % 2
            up = nn.ConvTranspose1d(width, after, 2 * stride, stride, padding, more)
            layers.append(DilatedStage(*_blocks(stages, reverse=True), up))
    layers.append(same_convolution(z, out_channels, 3, 1))
    return layers
