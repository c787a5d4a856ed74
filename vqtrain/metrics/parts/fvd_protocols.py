"""The two protocols of FVD in use, so that a value can be compared with that of a paper.

They differ in how clips are rounded, and in the file of the network; the resizing, and the distance
between two sets of features, are the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vqtrain import weights
from vqtrain.errors import WeightsError
from vqtrain.metrics.parts.i3d import I3D, SIDE

# A float this near below a level is the level, of which rounding has taken a little.
SLACK = 1e-3


def unrounded(clips: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
    """Map clips in [-1, 1] to floats in [0, 255], clamped and not rounded."""
    return (clips.float().clamp(-1, 1) + 1) * 127.5


def truncated(clips: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
    """Map clips in [-1, 1] to the levels below, as a cast to uint8 does.

    Deviation: what is a thousandth of a level below a level is that level, as it would be in exact
    numbers; so a perfect reconstruction is its original.

    Example:
        >>> import torch
        >>> truncated(torch.tensor([[[-1.5, -1.0, 0.0, 0.999, 1.0, 1 / 255]]])).tolist()
        [[[0.0, 0.0, 127.0, 254.0, 255.0, 128.0]]]
    """
    return (unrounded(clips) + SLACK).floor()


def resized(levels: Shaped[Tensor, "b c t h w"]) -> Float[Tensor, "b c t 224 224"]:
    """Map levels in 0..255 to clips in [-1, 1], as the network takes them.

    The shorter side of each frame becomes 224 px, bilinear without antialiasing, and the middle of
    the longer side is kept.
    """
    height, width = levels.shape[3:]
    scale = SIDE / min(height, width)
    longer = math.ceil(max(height, width) * scale)
    size = (SIDE, longer) if height < width else (longer, SIDE)
    frames = rearrange(levels.float() / 255, "b c t h w -> (b t) c h w")
    frames = interpolate(frames, size, mode="bilinear", align_corners=False)
    top, left = ((side - SIDE) // 2 for side in size)
    frames = frames[..., top : top + SIDE, left : left + SIDE]
    return rearrange(frames, "(b t) c h w -> b c t h w", b=len(levels)) * 2 - 1


@final
class ScriptFeatures(nn.Module):
    """The TorchScript of StyleGAN-V, which can resize and scale by itself, and is not to.

    Args:
        file: Where it is.

    Raises:
        WeightsError: If it is damaged or another program.
    """

    OPTIONS = ("rescale", "resize", "return_features")

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.network = weights.read_script(file).eval()
        schema = getattr(getattr(self.network, "forward", None), "schema", None)
        names = [argument.name for argument in getattr(schema, "arguments", [])]
        if not set(self.OPTIONS) <= set(names):
            raise WeightsError(refusal(file, "i3d_styleganv"))

    def forward(self, clips: Float[Tensor, "b 3 t 224 224"]) -> Float[Tensor, "b d"]:
        """Return the features before the softmax."""
        features: Tensor = self.network(clips, rescale=False, resize=False, return_features=True)
        return features


def read_i3d(file: Path) -> nn.Module:
    """Build the network with the weights that VideoGPT publishes.

    Raises:
        WeightsError: If they are damaged or those of another network.
    """
    network = I3D()
    try:
        network.load_state_dict(weights.read(file))
    except RuntimeError as error:
        raise WeightsError(refusal(file, "i3d_videogpt")) from error
    return network


def refusal(file: Path, known: str) -> str:
    """Say that a file is another one than a protocol needs."""
    return f"cannot use {file}: it is not the I3D that {weights.KNOWN[known].name} is"


@final
@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What one protocol does.

    Attributes:
        weights: Its file, a key of ``vqtrain.weights.KNOWN``.
        network: Builds a network from that file, from clips in [-1, 1] to features; a WeightsError
            if it is damaged or that of another network.
        to_levels: Rounds reconstructions.
        rounding: The same in words.
    """

    weights: str
    network: Callable[[Path], nn.Module]
    to_levels: Callable[[Tensor], Tensor]
    rounding: str


PROTOCOLS = {
    "styleganv": Protocol(
        weights="i3d_styleganv",
        network=ScriptFeatures,
        to_levels=unrounded,
        rounding="none: clamped floats",
    ),
    "videogpt": Protocol(
        weights="i3d_videogpt",
        network=read_i3d,
        to_levels=truncated,
        rounding="truncated to one of 256 levels",
    ),
}
