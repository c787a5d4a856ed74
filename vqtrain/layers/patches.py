"""Between images or clips and tokens of a patch each."""

import math
from collections.abc import Sequence
from typing import Annotated, final

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain.errors import ConfigError, require
from vqtrain.layers.pointwise import Pointwise
from vqtrain.ranges import at_least
from vqtrain.shapes import by

HEADS = ("linear", "tanh_mlp", "conv")
# Of images alone, or of all axes of a sample: frames, rows and columns.
PatchSize = Annotated[int, at_least(1)] | Sequence[Annotated[int, at_least(1)]]

_CUT = {
    2: "b c (r p) (s q) -> b (c p q) r s",
    3: "b c (t o) (r p) (s q) -> b (c o p q) t r s",
}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_SMOOTH = {2: nn.Conv2d, 3: nn.Conv3d}


def sides_of(patch_size: PatchSize, size: Sequence[int]) -> tuple[int, ...]:
    """Return the sides of a patch along the axes of a sample of some size.

    Raises:
        ConfigError: If samples are no images or clips, or there is not one side for each axis.
    """
    require(len(size) in _CUT, f"patches are of images or clips, got samples of {by(size)}")
    if isinstance(patch_size, int):
        return (patch_size,) * len(size)
    require(
        len(patch_size) == len(size),
        f"patch_size must be one number or {len(size)}, one for each axis of a sample of "
        f"{by(size)}, got {list(patch_size)}",
    )
    return tuple(patch_size)


def to_patches(
    samples: Float[Tensor, "b c *size"], sides: Sequence[int]
) -> Float[Tensor, "b values *grid"]:
    """Cut samples into patches; channels come first within one, then its frames and rows."""
    return rearrange(samples, _CUT[len(sides)], **_named(sides))


def to_samples(
    patches: Float[Tensor, "b values *grid"], sides: Sequence[int]
) -> Float[Tensor, "b c *size"]:
    """Put patches together again: the exact inverse of ``to_patches``."""
    before, after = _CUT[len(sides)].split(" -> ")
    return rearrange(patches, f"{after} -> {before}", **_named(sides))


def _named(sides: Sequence[int]) -> dict[str, int]:
    return dict(zip("qpo", reversed(sides), strict=False))


def grid_of(size: Sequence[int], sides: Sequence[int]) -> tuple[int, ...]:
    """Count the patches along each axis of a sample.

    Raises:
        ConfigError: If they do not divide it.
    """
    require(
        len(size) == len(sides),
        f"patches of {by(sides)} are of samples of {len(sides)} axes, got one of {by(size)}",
    )
    if any(n < side or n % side for n, side in zip(size, sides, strict=True)):
        patch = sides[0] if len(set(sides)) == 1 else by(sides)
        raise ConfigError(
            f"patches of {patch} px do not divide a sample of {by(size)}: change the size or "
            "patch_size"
        )
    return tuple(n // side for n, side in zip(size, sides, strict=True))


@final
class PixelHead(nn.Module):
    """Turns each token into the pixels of its patch.

    Args:
        kind: One of ``HEADS``. ``linear`` has one bias per channel, as in ViT-VQGAN; ``tanh_mlp``
            has a layer of 4 ``dim`` and tanh before it, as in BSQ-ViT; ``conv`` has a convolution
            of the pixels after it, 3 along each axis, which smooths seams, as in TiTok.
        dim: Channels of the tokens.
        out_channels: Channels of the samples.
        sides: Of a patch along each axis.
    """

    def __init__(self, kind: str, *, dim: int, out_channels: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.sides = tuple(sides)
        values = out_channels * math.prod(sides)
        self.to_pixels: nn.Module
        self.hidden = self.smooth = None
        if kind == "linear":
            transposed = _TRANSPOSED[len(sides)]
            self.to_pixels = transposed(dim, out_channels, self.sides, stride=self.sides)  # type: ignore[arg-type]  # as many as it has axes
        elif kind == "tanh_mlp":
            self.hidden = Pointwise(dim, 4 * dim)
            self.to_pixels = Pointwise(4 * dim, values)
        else:
            self.to_pixels = Pointwise(dim, values)
            self.smooth = _SMOOTH[len(sides)](out_channels, out_channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "b dim *grid"]) -> Float[Tensor, "b c *size"]:
        """Predict pixels."""
        if self.hidden is not None:
            x = self.hidden(x).tanh()
        pixels = self.to_pixels(x)
        if isinstance(self.to_pixels, Pointwise):
            pixels = to_samples(pixels, self.sides)
        return pixels if self.smooth is None else self.smooth(pixels)
