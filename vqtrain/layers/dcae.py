"""Parts of DC-AE: residual and linear-attention blocks, and shortcuts around resampling.

The parameters have the names and shapes of diffusers' ``AutoencoderDC``.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, TypedDict, Unpack, final

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import require
from vqtrain.layers.block import Block, Level
from vqtrain.layers.norm import RMSNorm
from vqtrain.layers.resampling import Multipliers
from vqtrain.ops.precision import at_least_float32, without_autocast
from vqtrain.ranges import Range, at_least, one_of

ACTIVATIONS = {"silu": F.silu, "relu": F.relu}
Activation = Annotated[str, one_of(*ACTIVATIONS)]
Norm = Annotated[str, one_of("rms", "none")]
KernelSizes = Annotated[
    list[int],
    Range("a list of odd numbers", lambda sizes: all(size > 0 and size % 2 == 1 for size in sizes)),
]
# Least sum of all attention. The exporter of ONNX takes 1e-15 for 0 where it is added.
EPS = 1e-15


class DCStages(TypedDict):
    """Sizes that encoder and decoder have.

    Attributes:
        channels: Channels that the multipliers multiply, at least 1.
        multipliers: Width of each stage, from the full resolution, each at least 1; n stages make
            2**(n - 1) px a latent.
        num_blocks: Blocks of each stage, at least 1, or one number for all; 0 of the first stage
            leaves it out, and the network begins at half the resolution.
        attention_factors: Downsampling factors of the stages whose blocks have linear attention;
            the others have residual blocks.
        head_dim: Channels of an attention head, at least 1; must divide the widths of these stages.
        kernel_sizes: Of depthwise convolutions that give more queries, keys and values, each odd.
        latent_channels: Channels of the latents, at least 1.
        latent_shortcut: Whether averages of channels go around the layer that gives the latents,
            and copies of them around the one that takes them.
    """

    channels: Annotated[int, at_least(1)]
    multipliers: Multipliers
    num_blocks: int | list[int]
    attention_factors: list[int]
    head_dim: Annotated[int, at_least(1)]
    kernel_sizes: KernelSizes
    latent_channels: Annotated[int, at_least(1)]
    latent_shortcut: bool


@final
class ResBlock(Block):
    """Two convolutions, and a norm after them.

    Args:
        channels: Channels in and out.
        norm: ``none`` leaves the norm out.
        activation: One of ``ACTIVATIONS``.
    """

    def __init__(self, channels: int, *, norm: str, activation: str) -> None:
        super().__init__()
        has_norm = norm == "rms"
        self.activation = ACTIVATIONS[activation]
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=not has_norm)
        self.norm = RMSNorm(channels) if has_norm else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what the convolutions find to ``x``."""
        return x + self.norm(self.conv2(self.activation(self.conv1(x))))


@final
class MultiscaleProjection(nn.Module):
    """Queries, keys and values that also see their neighborhood.

    Args:
        channels: Of queries, keys and values together.
        heads: Of each of the three.
        kernel_size: Of the neighborhood.
    """

    def __init__(self, channels: int, heads: int, kernel_size: int) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False
        )
        self.proj_out = nn.Conv2d(channels, channels, 1, groups=3 * heads, bias=False)

    def forward(self, qkv: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Gather neighbors, then mix the channels of each head."""
        return self.proj_out(self.proj_in(qkv))


@final
class LinearAttention(nn.Module):
    """Attention whose cost grows with the number of positions, not with its square.

    The similarity of a query and a key is relu(q).relu(k), so that keys and values are summed
    once, for all queries. It is computed in at least float32.

    Args:
        channels: Channels in and out.
        head_dim: Channels of a head.
        kernel_sizes: Of further queries, keys and values.
    """

    def __init__(self, channels: int, *, head_dim: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        self.head_dim = head_dim
        # Thirds of one map: heads take their query, key and value from three neighbors of it.
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_qkv_multiscale = nn.ModuleList(
            MultiscaleProjection(3 * channels, channels // head_dim, size) for size in kernel_sizes
        )
        self.to_out = nn.Linear(channels * (1 + len(kernel_sizes)), channels, bias=False)
        self.norm_out = RMSNorm(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what attention gathers to ``x``."""
        last = x.movedim(1, -1)
        thirds = [third(last).movedim(-1, 1) for third in (self.to_q, self.to_k, self.to_v)]
        qkv = torch.cat(thirds, 1)
        scales = torch.cat([qkv, *(more(qkv) for more in self.to_qkv_multiscale)], 1)
        heads = rearrange(scales, "b (n d) h w -> b n d (h w)", d=3 * self.head_dim)
        with without_autocast(heads):
            q, k, v = at_least_float32(heads).chunk(3, 2)
            q, k, v = F.relu(q), F.relu(k), F.pad(v, (0, 0, 0, 1), value=1.0)
            sums = (v @ k.transpose(-1, -2)) @ q  # the last row is that of the ones
            gathered = sums[:, :, :-1] / sums[:, :, -1:].clamp_min(EPS)
        grid = rearrange(gathered.to(x.dtype), "b n d (h w) -> b h w (n d)", h=x.shape[2])
        return x + self.norm_out(self.to_out(grid).movedim(-1, 1))


@final
class GatedConvolution(nn.Module):
    """A feed-forward part with a depthwise convolution, half of whose channels gate the others.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.conv_inverted = nn.Conv2d(channels, 2 * hidden, 1)
        self.conv_depth = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.conv_point = nn.Conv2d(hidden, channels, 1, bias=False)
        self.norm = RMSNorm(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Add what it finds to ``x``."""
        values, gates = self.conv_depth(F.silu(self.conv_inverted(x))).chunk(2, 1)
        return x + self.norm(self.conv_point(values * F.silu(gates)))


@final
class EfficientViTBlock(Block):
    """Linear attention, then a gated convolution.

    Args:
        channels: Channels in and out.
        head_dim: Channels of an attention head.
        kernel_sizes: See ``DCStages``.

    References:
        Cai et al. 2022, arXiv:2205.14756.
    """

    def __init__(self, channels: int, *, head_dim: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        self.attn = LinearAttention(channels, head_dim=head_dim, kernel_sizes=kernel_sizes)
        self.conv_out = GatedConvolution(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Apply both."""
        return self.conv_out(self.attn(x))


@final
class Down(Block):
    """Halves the resolution, around which averages of channels go.

    Args:
        in_channels: Channels in.
        out_channels: Channels out; 4 ``in_channels`` is a multiple of them if there is a shortcut.
        folds: Whether a convolution at full resolution comes first, whose blocks of 2x2 pixels
            become channels, and not one of stride 2.
        shortcut: Whether there is one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, folds: bool, shortcut: bool = True
    ) -> None:
        super().__init__()
        self.folds, self.shortcut, self.out_channels = folds, shortcut, out_channels
        width, stride = (out_channels // 4, 1) if folds else (out_channels, 2)
        self.conv = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h_half w_half"]:
        """Convolve, and add the averages."""
        h = self.conv(x)
        h = F.pixel_unshuffle(h, 2) if self.folds else h
        return h + averaged(F.pixel_unshuffle(x, 2), self.out_channels) if self.shortcut else h


@final
class Up(Block):
    """Doubles the resolution, around which copies of channels go.

    Args:
        in_channels: Channels in.
        out_channels: Channels out; 4 of them are a multiple of ``in_channels`` if there is a
            shortcut.
        unfolds: Whether channels of a convolution become blocks of 2x2 pixels; if not, pixels are
            repeated before one.
        shortcut: Whether there is one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, unfolds: bool, shortcut: bool = True
    ) -> None:
        super().__init__()
        self.unfolds, self.shortcut, self.wide = unfolds, shortcut, 4 * out_channels
        self.conv = nn.Conv2d(in_channels, self.wide if unfolds else out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h_double w_double"]:
        """Convolve, and add the copies."""
        if self.unfolds:
            h = F.pixel_shuffle(self.conv(x), 2)
        else:
            h = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return h + F.pixel_shuffle(copied(x, self.wide), 2) if self.shortcut else h


@final
class Stage(Level, nn.Sequential):
    """Blocks at one resolution, and the change to the next, after or before them."""


def averaged(x: Float[Tensor, "b c h w"], channels: int) -> Float[Tensor, "b d h w"]:
    """Average neighboring channels, so that so many remain."""
    return rearrange(x, "b (d n) h w -> b d n h w", d=channels).mean(2)


def copied(x: Float[Tensor, "b c h w"], channels: int) -> Float[Tensor, "b d h w"]:
    """Repeat each channel, so that there are so many."""
    return x.repeat_interleave(channels // x.shape[1], 1)


def blocks_of(stages: DCStages) -> list[int]:
    """Return the number of blocks of each stage."""
    given = stages["num_blocks"]
    return given if isinstance(given, list) else [given] * len(stages["multipliers"])


def build_blocks(
    stage: int, *, norm: str, activation: str, **stages: Unpack[DCStages]
) -> list[nn.Module]:
    """Build the blocks of a stage, counted from the full resolution.

    Args:
        stage: Which.
        norm: Of residual blocks.
        activation: Of residual blocks.
        **stages: See ``DCStages``.
    """
    width, count = widths_of(stages)[stage], blocks_of(stages)[stage]
    if 2**stage in stages["attention_factors"]:
        head_dim, sizes = stages["head_dim"], stages["kernel_sizes"]
        return [
            EfficientViTBlock(width, head_dim=head_dim, kernel_sizes=sizes) for _ in range(count)
        ]
    return [ResBlock(width, norm=norm, activation=activation) for _ in range(count)]


def widths_of(stages: DCStages) -> list[int]:
    """Return the channels of each stage."""
    return [stages["channels"] * multiplier for multiplier in stages["multipliers"]]


def check_stages(stages: DCStages) -> None:
    """Refuse sizes that do not fit each other.

    Raises:
        ConfigError: If there are any.
    """
    widths, blocks, z = widths_of(stages), blocks_of(stages), stages["latent_channels"]
    least = [int(len(widths) == 1)] + [1] * (len(widths) - 1)
    require(
        len(blocks) == len(widths) and all(n >= low for n, low in zip(blocks, least, strict=True)),
        f"num_blocks must be a number of at least 1, or {len(widths)} of them, as multipliers, of "
        f"which the first of several may be 0, got {stages['num_blocks']}",
    )
    for before, after in pairwise(widths[first_stage(stages) :]):
        require(
            4 * before % after == 0,
            f"multipliers give stages of {before} and {after} channels: four times the channels of "
            "a stage must be a multiple of those of the next",
        )
    require(
        not stages["latent_shortcut"] or widths[-1] % z == 0,
        f"latent_channels must divide the {widths[-1]} channels of the last stage, got {z}; or "
        "latent_shortcut be false",
    )
    factors = [2**stage for stage in range(len(widths))]
    for factor in stages["attention_factors"]:
        require(factor in factors, f"attention_factors must be taken from {factors}, got {factor}")
        width, dim = widths[factors.index(factor)], stages["head_dim"]
        require(
            width % dim == 0,
            f"head_dim must divide the {width} channels of the stage of factor {factor}, got {dim}",
        )


def first_stage(stages: DCStages) -> int:
    """Return the first stage that has blocks; the stage before it is left out."""
    return int(blocks_of(stages)[0] == 0)
