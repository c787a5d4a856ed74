"""What the encoder and the decoder of SEANet share: convolutions over time, blocks and an LSTM."""

from functools import partial
from itertools import pairwise
from typing import Annotated, TypedDict, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.layers.activations import Activation, build_activation
from vqtrain.layers.block import Level
from vqtrain.layers.causal import CausalConv, CausalTransposedConv
from vqtrain.layers.dilated import DilatedBlock
from vqtrain.layers.lstm import SkipLSTM
from vqtrain.layers.weight_norm import WeightNorm
from vqtrain.ranges import Range, at_least, one_of

# Latents that a causal network computes at once in eval mode: a fifth of a second at 75 Hz.
LATENTS_AT_ONCE = 15
ODD = Range("an odd number of at least 1", lambda size: size >= 1 and size % 2 == 1)


class SEANet(TypedDict):
    """Sizes that encoder and decoder have.

    Attributes:
        channels: Of the samples' resolution, at least 1; each stride doubles them.
        strides: From the samples' resolution, each at least 2; their product is the samples a
            latent. The convolution of a stride s has a kernel of 2 s positions.
        latent_channels: Channels of the latents, at least 1.
        num_blocks: Residual blocks at each resolution but that of the latents, at least 0.
        dilation_base: The dilation of the blocks is 1 and grows by this factor from block to block,
            at least 1.
        compress: Channels of a resolution over those inside its blocks, at least 1.
        convolved_shortcut: Whether there is a convolution of 1 position around each block; if not,
            its input is added as it is.
        activation: One of ``ACTIVATIONS``.
        kernel_size: Of the first convolution, odd.
        last_kernel_size: Of the last one, odd.
        block_kernel_size: Of the first convolution of a block, odd.
        num_lstm_layers: Of the LSTM next to the latents, at least 0.
        weight_norm: Whether weights are directions and lengths, see ``WeightNorm``.
        causal: Whether no output depends on later positions, but by the reflection.
        padding: What is before the first position: ``zeros``, or a ``reflect``ion of what follows,
            by which the first outputs depend on later positions. After the last position, too,
            unless ``causal``.
    """

    channels: Annotated[int, at_least(1)]
    strides: Annotated[
        list[int],
        Range(
            "a list of strides, each at least 2, such as [2,4,5,8]",
            lambda strides: len(strides) > 0 and min(strides) >= 2,
        ),
    ]
    latent_channels: Annotated[int, at_least(1)]
    num_blocks: Annotated[int, at_least(0)]
    dilation_base: Annotated[int, at_least(1)]
    compress: Annotated[int, at_least(1)]
    convolved_shortcut: bool
    activation: Activation
    kernel_size: Annotated[int, ODD]
    last_kernel_size: Annotated[int, ODD]
    block_kernel_size: Annotated[int, ODD]
    num_lstm_layers: Annotated[int, at_least(0)]
    weight_norm: bool
    causal: bool
    padding: Annotated[str, one_of("zeros", "reflect")]


def streams(sizes: SEANet) -> bool:
    """Say whether a network with these sizes is causal from its first position on."""
    return sizes["causal"] and sizes["padding"] == "zeros"


def widths_of(sizes: SEANet) -> list[int]:
    """Return the channels at each resolution, from that of the samples to that of the latents."""
    return [sizes["channels"] * 2**level for level in range(len(sizes["strides"]) + 1)]


@final
class PaddedConv(nn.Module):
    """A convolution over time of a padded input, for which its length is a multiple of the stride.

    The padding is so long that there are as many outputs as strides. All of it comes before the
    first position if the convolution is ``causal``, and otherwise half of it, rounded up.

    Args:
        conv: The convolution, without padding.
        causal: Where the padding is.
        reflect: Whether it is a reflection, and not zeros. Where there is too little to reflect,
            zeros follow.
    """

    def __init__(self, conv: nn.Conv1d, *, causal: bool, reflect: bool) -> None:
        super().__init__()
        ((kernel,), (stride,), (dilation,)) = conv.kernel_size, conv.stride, conv.dilation
        total = dilation * (kernel - 1) + 1 - stride
        self.after = 0 if causal else total // 2
        self.before, self.reflect = total - self.after, reflect
        self.conv: nn.Module = conv

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b d t_out"]:
        """Pad, then convolve."""
        before, after = self.before, self.after
        if not self.reflect:
            return self.conv(F.pad(x, (before, after)))
        # Without a case for short inputs, since a graph is traced for all lengths.
        parts = [F.pad(x, (0, before))[..., 1 : before + 1].flip(2), x]
        if after:
            parts.append(F.pad(x, (after, 0))[..., -after - 1 : -1].flip(2))
        return self.conv(torch.cat(parts, dim=2))


@final
class TrimmedConv(nn.Module):
    """A transposed convolution over time, each of whose inputs becomes ``stride`` outputs.

    What it makes more than that is cut off: half of it at the end, and the rest at the start.

    Args:
        conv: The transposed convolution, without padding.
    """

    def __init__(self, conv: nn.ConvTranspose1d) -> None:
        super().__init__()
        ((kernel,), (stride,)) = conv.kernel_size, conv.stride
        self.after = (kernel - stride) // 2
        self.before = kernel - stride - self.after
        self.conv: nn.Module = conv

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b d t_out"]:
        """Convolve, then cut."""
        y = self.conv(x)
        return y[..., self.before : y.shape[2] - self.after]


@final
class SEANetStage(nn.Sequential, Level):
    """Blocks at one resolution in time, and the change to or from the next."""


def convolution(
    before: int,
    after: int,
    kernel_size: int,
    dilation: int = 1,
    *,
    sizes: SEANet,
    stride: int = 1,
) -> nn.Module:
    """Build a convolution over time.

    Args:
        before: Channels in.
        after: Channels out.
        kernel_size: At least ``stride``.
        dilation: At least 1.
        sizes: See ``SEANet``.
        stride: At least 1.
    """
    if streams(sizes):
        causal = CausalConv(
            before, after, [kernel_size], stride=[stride], dilation=dilation, first_alone=False
        )
        return _normed(causal, sizes)
    conv = nn.Conv1d(before, after, kernel_size, stride, dilation=dilation)
    padded = PaddedConv(conv, causal=sizes["causal"], reflect=sizes["padding"] == "reflect")
    return _normed(padded, sizes)


def transposed(before: int, after: int, stride: int, *, sizes: SEANet) -> nn.Module:
    """Build a transposed convolution over time with a kernel of twice the stride.

    Args:
        before: Channels in.
        after: Channels out.
        stride: At least 2.
        sizes: See ``SEANet``.
    """
    if sizes["causal"]:
        return _normed(CausalTransposedConv(before, after, 2 * stride, stride=stride), sizes)
    return _normed(TrimmedConv(nn.ConvTranspose1d(before, after, 2 * stride, stride)), sizes)


def _normed(
    built: CausalConv | PaddedConv | CausalTransposedConv | TrimmedConv, sizes: SEANet
) -> nn.Module:
    if sizes["weight_norm"]:
        assert isinstance(built.conv, nn.Conv1d | nn.ConvTranspose1d), "it is new"
        built.conv = WeightNorm(built.conv)
    return built


def _blocks(channels: int, sizes: SEANet) -> list[nn.Module]:
    convolve = partial(convolution, sizes=sizes)
    return [
        DilatedBlock(
            channels=channels,
            block_channels=max(1, channels // sizes["compress"]),
            kernel_size=sizes["block_kernel_size"],
            dilation=sizes["dilation_base"] ** depth,
            activation=sizes["activation"],
            convolution=convolve,
            shortcut=(
                convolve(channels, channels, 1) if sizes["convolved_shortcut"] else nn.Identity()
            ),
        )
        for depth in range(sizes["num_blocks"])
    ]


def seanet_down(in_channels: int, sizes: SEANet) -> nn.Sequential:
    """Build the way from a sound to latents.

    Args:
        in_channels: Channels in.
        sizes: See ``SEANet``.
    """
    widths, activation = widths_of(sizes), sizes["activation"]
    layers = nn.Sequential(convolution(in_channels, widths[0], sizes["kernel_size"], sizes=sizes))
    for (width, wider), stride in zip(pairwise(widths), sizes["strides"], strict=True):
        down = convolution(width, wider, 2 * stride, sizes=sizes, stride=stride)
        blocks = _blocks(width, sizes)
        layers.append(SEANetStage(*blocks, build_activation(activation, width), down))
    if sizes["num_lstm_layers"]:
        layers.append(SkipLSTM(widths[-1], sizes["num_lstm_layers"]))
    layers.append(build_activation(activation, widths[-1]))
    kernel_size, z = sizes["last_kernel_size"], sizes["latent_channels"]
    layers.append(convolution(widths[-1], z, kernel_size, sizes=sizes))
    return layers


def seanet_up(out_channels: int, sizes: SEANet) -> nn.Sequential:
    """Build the way from latents to a sound.

    Args:
        out_channels: Channels out.
        sizes: See ``SEANet``.
    """
    widths, activation = widths_of(sizes), sizes["activation"]
    kernel_size, z = sizes["kernel_size"], sizes["latent_channels"]
    layers = nn.Sequential(convolution(z, widths[-1], kernel_size, sizes=sizes))
    if sizes["num_lstm_layers"]:
        layers.append(SkipLSTM(widths[-1], sizes["num_lstm_layers"]))
    pairs = zip(pairwise(widths), sizes["strides"], strict=True)
    for (width, wider), stride in reversed(list(pairs)):
        up = transposed(wider, width, stride, sizes=sizes)
        blocks = _blocks(width, sizes)
        layers.append(SEANetStage(build_activation(activation, wider), up, *blocks))
    layers.append(build_activation(activation, widths[0]))
    layers.append(convolution(widths[0], out_channels, sizes["last_kernel_size"], sizes=sizes))
    return layers
